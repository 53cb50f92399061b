"""Images from a folder or from an array in an .npz file."""

import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Names an array of images goes by; the first one present is read.
ARRAYS = ("images", "x", "x_train", "x_test", "arr_0")
# Small enough that a decompression bomb is refused, large enough for any photograph.
_MOST_PIXELS = 100_000_000

Reader = Callable[[], Image.Image]


def folder_images(folder: Path) -> dict[str, Reader]:
    """Readers of all image files below a folder, by path in it, in sorted order.

    A file is an image where Pillow knows its suffix. Raises ValueError for a folder
    without any.
    """
    known = Image.registered_extensions()
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in known)
    if not files:
        raise ValueError(f"{folder} holds no image file (.png, .jpg, ...)")
    return {str(f.relative_to(folder)): partial(_decoded, f) for f in files}


def array_images(path: Path) -> dict[str, Reader]:
    """Readers of the images [n, height, width] or [n, height, width, 1 or 3], uint8.

    The file is read without unpickling. Raises ValueError naming the file where it is
    no .npz, has no array named as in `ARRAYS`, or one that holds no such images.
    """
    name, images = _array(path)
    gray, rgb = images.ndim == 3, images.ndim == 4 and images.shape[-1] in (1, 3)
    if images.dtype != np.uint8 or not (gray or rgb):
        raise ValueError(
            f"{name!r} in {path} must be uint8 images [n, height, width(, 1 or 3)], "
            f"got {images.dtype} {list(images.shape)}"
        )
    if not gray and images.shape[-1] == 1:
        images = images[..., 0]
    return {
        f"{name}[{i}]": partial(Image.fromarray, pixels)
        for i, pixels in enumerate(images)
    }


def _array(path: Path) -> tuple[str, NDArray[np.generic]]:
    """The array of an .npz file that goes by one of the names, with that name."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            present = list(arrays.files)
            for name in ARRAYS:
                if name in present:
                    return name, arrays[name]
    except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path} is not a readable .npz file: {error}") from None
    raise ValueError(
        f"{path} has no array named {', '.join(ARRAYS)}; it has {', '.join(present)}"
    )


class UndecodableError(ValueError):
    """An image that cannot be read; the message says which and why."""


def decoded(name: str, read: Reader) -> Image.Image:
    """Read an image as RGB; UndecodableError where its file is broken or too large."""
    try:
        return read().convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UndecodableError(f"{name}: {error}") from None


def _decoded(path: Path) -> Image.Image:
    with Image.open(path) as image:
        if image.width * image.height > _MOST_PIXELS:
            raise ValueError(
                f"{image.width} x {image.height} pixels, more than {_MOST_PIXELS}"
            )
        image.load()
        return image.copy()

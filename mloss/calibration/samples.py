"""One door to calibration data: files in, batches of a model's own inputs out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mloss.calibration.images import (
    UndecodableError,
    array_images,
    decoded,
    folder_images,
)
from mloss.calibration.preparation import Prepare, image_preparation, text_preparation
from mloss.calibration.texts import texts

_TEXTS = (".txt", ".jsonl", ".txt.gz", ".jsonl.gz")


@dataclass
class Calibration:
    """Unlabelled samples in a random order, prepared as they are asked for.

    `modality` is "image" or "text". `skipped` has a line on every image so far that
    did not decode.
    """

    modality: str
    items: Sequence[tuple[str, Any]]
    prepare: Prepare
    skipped: list[str] = field(default_factory=list)

    def batches(self, samples: int, *, size: int = 32) -> Iterator[dict[str, Tensor]]:
        """Batches of at most `size` from the first `samples` that can be read.

        Fewer come where there are fewer. Raises ValueError where there is none.
        """
        if samples < 1 or size < 1:
            raise ValueError(f"samples and size must be >= 1, got {samples} and {size}")
        rest, given = iter(self.items), 0
        self.skipped.clear()
        while given < samples:
            chunk = self._next(rest, min(size, samples - given))
            if not chunk:
                break
            given += len(chunk)
            yield self.prepare(chunk)
        if not given:
            raise ValueError(
                f"none of the {len(self.items)} images decodes; the first: "
                f"{self.skipped[0]}"
            )

    def _next(self, rest: Iterator[tuple[str, Any]], count: int) -> list[Any]:
        """The next `count` samples that can be read, or as many as there are."""
        chunk: list[Any] = []
        for name, item in rest:
            try:
                chunk.append(item if self.modality == "text" else decoded(name, item))
            except UndecodableError as error:
                self.skipped.append(str(error))
            if len(chunk) == count:
                break
        return chunk


def open_calibration(
    paths: Path | Sequence[Path],
    *,
    checkpoint: Path,
    seed: int = 0,
    plain_images: bool = False,
) -> Calibration:
    """Samples of image folders, .npz image arrays, .txt and .jsonl(.gz) texts.

    Several paths are drawn from in equal parts, in an order that `seed` decides.
    `checkpoint` is the directory whose image processor or tokenizer prepares them;
    `plain_images` are neither cropped nor normalised.
    Raises ValueError for a path that is not there or of another kind, for images and
    texts together, and for a checkpoint without the processor.
    """
    each = [paths] if isinstance(paths, Path) else list(paths)
    if not each:
        raise ValueError("data must be at least one path, got none")
    modalities = {_modality(path) for path in each}
    if len(modalities) > 1:
        raise ValueError("data must be all images or all texts, got both")
    (modality,) = modalities
    rng = np.random.default_rng(seed)
    items = _interleaved([_shuffled(_read(path), rng) for path in each])
    if modality == "text":
        return Calibration(modality, items, text_preparation(checkpoint))
    return Calibration(
        modality, items, image_preparation(checkpoint, plain=plain_images)
    )


def _modality(path: Path) -> str:
    if path.is_dir() or path.suffix == ".npz":
        return "image"
    if path.name.endswith(_TEXTS):
        return "text"
    if not path.exists():
        raise ValueError(f"data {path} does not exist")
    raise ValueError(
        f"data {path} is neither an image folder nor a file of the kinds .npz, "
        f"{', '.join(_TEXTS)}"
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise ValueError(f"data {path} does not exist")
    if path.is_dir():
        return dict(folder_images(path))
    return dict(array_images(path) if path.suffix == ".npz" else texts(path))


def _shuffled(items: dict[str, Any], rng: np.random.Generator) -> list[tuple[str, Any]]:
    pairs = list(items.items())
    return [pairs[i] for i in rng.permutation(len(pairs))]


def _interleaved(
    parts: Sequence[Sequence[tuple[str, Any]]],
) -> list[tuple[str, Any]]:
    """One from each part in turn, for as long as each has some."""
    longest = max(len(part) for part in parts)
    return [part[i] for i in range(longest) for part in parts if i < len(part)]

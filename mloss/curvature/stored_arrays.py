"""Arrays in a directory of one setting, each written whole or not at all."""

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.floating[Any]]

_SETTINGS = "settings.json"


@dataclass(frozen=True)
class StoredArrays:
    """Arrays by name in a directory."""

    directory: Path

    @classmethod
    def open(cls, directory: Path, settings: Mapping[str, str]) -> "StoredArrays":
        """Make the directory, or go on in one made with the same settings.

        Raises ValueError naming what differs where it was made with others.
        """
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / _SETTINGS
        if not path.exists():
            _write(path, json.dumps(settings, indent=1).encode())
        if differing := _differing(path, settings):
            raise ValueError(
                f"{directory} holds results for another {' and '.join(differing)}: "
                "give an empty directory"
            )
        return cls(directory)

    def get(self, name: str, compute: Callable[[], Array]) -> Array:
        """The array of that name, computed unless it is there in full."""
        path = self.directory / f"{name}.npy"
        stored = _read(path)
        if stored is None:
            stored = compute()
            content = io.BytesIO()
            np.save(content, stored)
            _write(path, content.getvalue())
        return stored


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A name for what tensors hold: 16 hexadecimal digits of SHA-256."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def _differing(path: Path, settings: Mapping[str, str]) -> list[str]:
    try:
        stored = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: give an empty directory") from error
    return [name for name, value in settings.items() if stored.get(name) != value]


def _read(path: Path) -> Array | None:
    """The array, mapped and not read, or None where it is absent or damaged."""
    try:
        stored: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return stored


def _write(path: Path, content: bytes) -> None:
    """Put the whole file under its name at once, or nothing."""
    handle, unfinished = tempfile.mkstemp(dir=path.parent, suffix=".unfinished")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(unfinished, path)  # noqa: PTH105  # the atomic step, named plainly
    except BaseException:
        Path(unfinished).unlink()
        raise

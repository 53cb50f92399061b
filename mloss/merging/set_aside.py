"""Tensors put away on disk until all of them are known."""

import os
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from threading import Lock

import numpy as np
import torch
from torch import Tensor


class SetAside(Mapping[str, Tensor]):
    """Tensors in one unnamed temporary file, which goes when nobody holds them.

    So one entry at a time is in memory where a method must have seen all entries
    before it can finish any. The file is where the system keeps such files (TMPDIR)
    and as large as the tensors together.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # open while it is used
        weakref.finalize(self, self._file.close)
        self._lock = Lock()
        self._places: dict[str, tuple[int, torch.device]] = {}

    def put(self, key: str, value: Tensor) -> None:
        """Write a tensor under a key."""
        with self._lock:
            self._places[key] = self._file.seek(0, os.SEEK_END), value.device
            np.save(self._file, value.detach().cpu().numpy())

    def __getitem__(self, key: str) -> Tensor:
        place, device = self._places[key]
        with self._lock:
            self._file.seek(place)
            value = np.load(self._file)
        return torch.from_numpy(value).to(device)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

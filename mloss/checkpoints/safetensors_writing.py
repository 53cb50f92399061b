"""Safetensors files written one tensor at a time, and gone on with where cut short."""

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from mloss.checkpoints.checkpoint import Entry
from mloss.checkpoints.safetensors_file import CODES
from mloss.finite import all_finite
from mloss.look_ahead import look_ahead

_ALIGNMENT = 8


def write_safetensors(
    path: Path,
    entries: Mapping[str, Entry],
    *,
    written: Callable[[str], None] = lambda _: None,
) -> None:
    """Write a file, holding a few tensors in memory at a time (`mloss.look_ahead`).

    Where there is a file that begins as this one, its whole tensors stay, and only the
    others are read: the result is the same. `written` is called with each name once it
    is in the file. Wide dtypes come first, so that every tensor is aligned. Raises
    ValueError where a tensor is not what its entry says, or not finite.
    """
    order = sorted(entries, key=lambda name: -entries[name].dtype.itemsize)
    header = _header(entries, order)
    with path.open("ab") as file:
        there = _whole_tensors(path, header, [stored_size(entries[n]) for n in order])
        if there is None:
            file.truncate(0)
            file.write(header)
        else:
            file.truncate(
                len(header) + sum(stored_size(entries[n]) for n in order[:there])
            )
        first = there or 0
        for name in order[:first]:
            written(name)
        missing = order[first:]
        each = look_ahead(
            lambda name: _stored_bytes(name, entries[name]),
            missing,
            size=lambda name: torch.Size(entries[name].shape).numel(),
        )
        for name, stored in zip(missing, each, strict=True):
            file.write(stored)
            file.flush()
            written(name)


def _header(entries: Mapping[str, Entry], order: list[str]) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name in order:
        entry, end = entries[name], start + stored_size(entries[name])
        header[name] = {
            "dtype": CODES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _whole_tensors(path: Path, header: bytes, sizes: list[int]) -> int | None:
    """How many tensors of a file are whole; None where it does not begin alike."""
    with path.open("rb") as file:
        if file.read(len(header)) != header:
            return None
    room = path.stat().st_size - len(header)
    for index, size in enumerate(sizes):
        room -= size
        if room < 0:
            return index
    return len(sizes)


def stored_size(entry: Entry) -> int:
    """The number of bytes that a tensor takes on disk."""
    return torch.Size(entry.shape).numel() * entry.dtype.itemsize


def _stored_bytes(name: str, entry: Entry) -> memoryview:
    value = entry.read().detach()
    if tuple(value.shape) != entry.shape or value.dtype != entry.dtype:
        raise ValueError(
            f"{name!r} is {value.dtype} {list(value.shape)}, "
            f"announced as {entry.dtype} {list(entry.shape)}"
        )
    if value.is_floating_point() and not all_finite(value):
        raise ValueError(
            f"{name!r} of the merge has values that {value.dtype} cannot hold: its "
            "scale may be too large"
        )
    flat = value.cpu().contiguous().reshape(-1).view(torch.uint8)
    return flat.numpy().data

"""Single safetensors files, read and written one tensor at a time.

A file is the length of its header as 8 bytes, the header in JSON, which gives each
tensor's dtype, shape and place, and then the tensors' bytes.
"""

import json
import struct
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from mloss.checkpoints.checkpoint import Entry

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_ALIGNMENT = 8


def safetensors_entries(path: Path) -> dict[str, Entry]:
    """The tensors of a file, mapped into memory as they are read.

    Raises ValueError where the file is cut short or no safetensors file, and for
    quantised numbers, whose mean means nothing.
    """
    try:
        file = safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}): "
            "copy or download it again"
        ) from error
    entries = {}
    for name in file.keys():  # type: ignore[no-untyped-call]  # noqa: SIM118  # no dict, no types
        part = file.get_slice(name)  # type: ignore[no-untyped-call]  # no types
        if (code := part.get_dtype()) not in _DTYPES:
            raise ValueError(
                f"{name!r} in {path} has dtype {code}, which cannot be merged: "
                "save the model in float32, float16 or bfloat16"
            )
        shape = tuple(part.get_shape())
        entries[name] = Entry(shape, _DTYPES[code], partial(file.get_tensor, name))
    return entries


def write_safetensors(path: Path, entries: Mapping[str, Entry]) -> None:
    """Write a file, holding one tensor in memory at a time.

    Wide dtypes come first, so that every tensor is aligned. Raises ValueError where
    a tensor is not what its entry says.
    """
    order = sorted(entries, key=lambda name: -entries[name].dtype.itemsize)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name in order:
        entry, end = entries[name], start + stored_size(entries[name])
        header[name] = {
            "dtype": _CODES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            file.write(_stored_bytes(name, entries[name]))


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
    flat = value.cpu().contiguous().reshape(-1).view(torch.uint8)
    return flat.numpy().data

"""Single safetensors files, read one tensor at a time.

A file is the length of its header as 8 bytes, the header in JSON, which gives each
tensor's dtype, shape and place, and then the tensors' bytes.
"""

import json
import mmap
import struct
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

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
CODES = {dtype: code for code, dtype in _DTYPES.items()}


def safetensors_entries(path: Path) -> dict[str, Entry]:
    """The tensors of a file, each mapped into memory for as long as it is in use.

    Raises ValueError where the file is cut short or no safetensors file, and for
    quantised numbers, whose mean means nothing.
    """
    try:
        safe_open(path, framework="pt")  # looks through the header, and at the size
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}): "
            "copy or download it again"
        ) from error
    begin, header = _header(path)
    entries = {}
    for name, part in header.items():
        if (code := part["dtype"]) not in _DTYPES:
            raise ValueError(f"{name!r} in {path} {unmergeable(code)}")
        shape, dtype = tuple(part["shape"]), _DTYPES[code]
        first, end = part["data_offsets"]
        read = partial(_mapped, path, begin + first, begin + end, dtype, shape)
        entries[name] = Entry(shape, dtype, read)
    return entries


def unmergeable(dtype: object) -> str:
    """What is wrong with a tensor that has none of the dtypes in `CODES`."""
    return (
        f"has dtype {dtype}, which cannot be merged: save the model in float32, "
        "float16 or bfloat16"
    )


def _header(path: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    """Where the tensors begin, and what the header says of each."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, dict[str, Any]] = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return 8 + length, header


def _mapped(
    path: Path, first: int, end: int, dtype: torch.dtype, shape: tuple[int, ...]
) -> Tensor:
    """The bytes of a file from `first` to `end` as a tensor.

    They are mapped apart from others, so that they leave memory when the tensor does,
    and privately: what is written to the tensor does not reach the file.
    """
    if first == end:
        return torch.empty(shape, dtype=dtype)
    page = first - first % mmap.ALLOCATIONGRANULARITY
    with path.open("rb") as file:
        mapped = mmap.mmap(
            file.fileno(), end - page, access=mmap.ACCESS_COPY, offset=page
        )
    values = torch.frombuffer(mapped, dtype=torch.uint8, offset=first - page)
    if (first - page) % dtype.itemsize:
        values = values.clone()  # no rule says that tensors are aligned
    return values.view(dtype).reshape(shape)

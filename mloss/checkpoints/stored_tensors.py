"""Tensors inside a file of torch.save: checked against their storage, read lazily."""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, TypeGuard

import torch
from torch import Tensor

from mloss.checkpoints.checkpoint import Entry
from mloss.checkpoints.inert_pickle import Inert
from mloss.checkpoints.torch_archive import Archive, Span, storage_dtype

_REBUILD = "torch._utils._rebuild_"
_TENSORS = {_REBUILD + name for name in ("tensor", "tensor_v2", "tensor_v3")}
_PARAMETERS = {_REBUILD + name for name in ("parameter", "parameter_with_state")}
_WITH_ATTRIBUTES = "torch._tensor._rebuild_from_type_v2"
_PLAIN_CLASSES = {"torch.Tensor", "torch.nn.parameter.Parameter"}


def is_tensor(value: object) -> TypeGuard[Inert]:
    """Whether torch would make this object of a pickle a plain tensor or parameter."""
    made = _bare(value)
    return isinstance(made, Inert) and made.origin in _TENSORS


def tensor_reader(archive: Archive) -> Callable[[Inert], Entry]:
    """How to make the entries of an archive, whose file is mapped at the first read."""

    @cache
    def mapped() -> Tensor:
        size = archive.path.stat().st_size
        storage = torch.UntypedStorage.from_file(
            str(archive.path), shared=False, nbytes=size
        )
        return torch.empty(0, dtype=torch.uint8).set_(storage)  # type: ignore[arg-type]  # torch's stub of from_file is too wide

    return partial(_entry, archive=archive, mapped=mapped)


def _entry(value: Inert, *, archive: Archive, mapped: Callable[[], Tensor]) -> Entry:
    """Describe one tensor. Raises ValueError where it does not fit its storage."""
    made = _bare(value)
    try:
        storage, offset, shape, strides, *rest = made.arguments
        _, kind, key, _, _, *view = storage
        dtype = storage_dtype(kind)
        if made.origin.endswith("_v3"):
            dtype = _named_dtype(rest.pop(2))
        if any(view) or any(rest[2:]):
            raise ValueError("a view of a storage, a conjugate or a negative")
        span = archive.spans[key]
        _check_fits(offset, shape, strides, room=span.size // dtype.itemsize)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise ValueError(f"it does not fit its storage ({error})") from error
    read = partial(_read, mapped, span, dtype, tuple(shape), tuple(strides), offset)
    return Entry(tuple(shape), dtype, read)


def _bare(value: Any) -> Any:
    """The tensor inside a parameter, or inside a tensor with attributes."""
    while isinstance(value, Inert) and value.arguments:
        if value.origin in _PARAMETERS:
            value = value.arguments[0]
        elif value.origin == _WITH_ATTRIBUTES and _is_plain(*value.arguments):
            rebuild, _, arguments, *_ = value.arguments
            value = rebuild(*arguments)
        else:
            break
    return value


def _is_plain(rebuild: object, kind: object = None, *others: object) -> bool:
    known = isinstance(rebuild, type) and issubclass(rebuild, Inert)
    plain = getattr(kind, "origin", None) in _PLAIN_CLASSES
    return known and plain and bool(others) and isinstance(others[0], tuple)


def _named_dtype(name: object) -> torch.dtype:
    dtype = getattr(torch, getattr(name, "origin", "").removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"unknown dtype {name!r}")
    return dtype


def _check_fits(offset: Any, shape: Any, strides: Any, *, room: int) -> None:
    for number in (offset, *shape, *strides):
        if type(number) is not int or number < 0:
            raise ValueError(f"{number!r} in a shape, stride or offset")
    if len(shape) != len(strides):
        raise ValueError(f"{len(shape)} lengths and {len(strides)} strides")
    numbers = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if numbers > room or (numbers and last >= room):
        raise ValueError(f"shape {tuple(shape)} in a storage of {room} numbers")


def _read(
    mapped: Callable[[], Tensor],
    span: Span,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int,
) -> Tensor:
    size = span.size - span.size % dtype.itemsize
    numbers = mapped()[span.start : span.start + size]
    if span.start % dtype.itemsize:
        numbers = numbers.clone()  # the old format aligns nothing
    flat = numbers.view(dtype)
    return flat.as_strided(shape, strides, flat.storage_offset() + offset)

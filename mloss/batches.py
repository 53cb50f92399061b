"""Batches of unlabelled inputs: tensors, or keyword arguments as `transformers` has."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

import torch
from jaxtyping import Bool
from torch import Tensor

Batch: TypeAlias = Tensor | Mapping[str, Tensor]
Data: TypeAlias = Batch | Iterable[Batch]


def batches(data: Data) -> Iterator[Batch]:
    """Batches of inputs, samples along the first axis; a single one may come alone.

    A batch is the model's one argument, or a mapping of its keyword arguments. Raises
    TypeError for anything else, and ValueError for a batch without samples or whose
    arguments disagree on their number, for floating-point numbers along one axis,
    which are one sample without its batch axis, and for data without batches.
    """
    index = -1
    for index, batch in enumerate(
        [data] if isinstance(data, Tensor | Mapping) else data
    ):
        _check(batch, f"batch {index} of data")
        yield batch
    if index < 0:
        raise ValueError("data must hold at least one batch, got none")


def size(batch: Batch) -> int:
    """Count the samples of a batch."""
    return len(next(iter(_arguments(batch).values())))


def on_device(batch: Batch, device: torch.device) -> Batch:
    """Copy a batch to the device, or return it where it is there already."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    return {name: value.to(device) for name, value in batch.items()}


def part(batch: Batch, samples: slice) -> Batch:
    """Take some of the samples of a batch."""
    if isinstance(batch, Tensor):
        return batch[samples]
    return {name: value[samples] for name, value in batch.items()}


def real_tokens(batch: Batch) -> Bool[Tensor, "sample token"] | None:
    """Where a batch of padded sequences has tokens; None where nothing is padded.

    Padding is what `attention_mask` [sample, token] says it is, by the convention of
    `transformers`.
    """
    mask = None if isinstance(batch, Tensor) else batch.get("attention_mask")
    if mask is None or mask.ndim != 2 or mask.bool().all():
        return None
    return mask.bool()


def _arguments(batch: Batch) -> Mapping[str, Tensor]:
    return {"": batch} if isinstance(batch, Tensor) else batch


def _check(batch: object, where: str) -> None:
    if not isinstance(batch, Tensor | Mapping):
        raise TypeError(
            f"{where} must be a tensor or a mapping of tensors, "
            f"got {type(batch).__name__}"
        )
    counts = {_count(v, f"{where}[{n!r}]" if n else where) for n, v in _named(batch)}
    if len(counts) != 1:
        raise ValueError(
            f"the arguments in {where} must have one number of samples, "
            f"got {sorted(counts)}"
        )


def _named(batch: Tensor | Mapping[str, object]) -> list[tuple[str, object]]:
    return [("", batch)] if isinstance(batch, Tensor) else list(batch.items())


def _count(value: object, where: str) -> int:
    if not isinstance(value, Tensor):
        raise TypeError(f"{where} must be a tensor, got {type(value).__name__}")
    if value.ndim == 0 or len(value) == 0:
        raise ValueError(f"{where} has no samples")
    if value.ndim == 1 and value.is_floating_point():
        raise ValueError(
            f"{where} must have shape [sample, ...], got {tuple(value.shape)}: "
            "one sample is a batch of length 1"
        )
    return len(value)

"""Samples in two halves: one to fit to and one to judge the fit by."""

from collections.abc import Iterable

from jaxtyping import Int
from torch import Generator, Tensor, randperm

from mloss.batches import Batch, size


def halves(count: int) -> tuple[Int[Tensor, " first"], Int[Tensor, " second"]]:
    """Indices of two halves of the samples of a batch; the first has one more if odd.

    Drawn by chance, since samples may come in turns from several tasks, and the same
    for the same count.
    """
    order = randperm(count, generator=Generator().manual_seed(0))
    middle = (count + 1) // 2
    return order[:middle], order[middle:]


def chosen(batch: Batch, samples: Int[Tensor, " sample"]) -> Batch:
    """Take the samples of these indices."""
    if isinstance(batch, Tensor):
        return batch[samples]
    return {name: value[samples] for name, value in batch.items()}


def check_halves(inputs: Iterable[Batch]) -> None:
    """Raise ValueError where no batch has a sample for the second half."""
    if all(size(batch) < 2 for batch in inputs):
        raise ValueError(
            "data must hold a batch of two samples or more: half are held out"
        )

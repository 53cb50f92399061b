"""Several processes, as torchrun starts them, that share the samples of one run."""

from typing import TypeVar

import torch.distributed

T = TypeVar("T")


def own_samples(samples: int) -> slice:
    """Which samples of a batch are this process's: every one where it is alone."""
    if not _shared():
        return slice(None)
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    return slice(rank * samples // ranks, (rank + 1) * samples // ranks)


def gathered(value: T) -> list[T]:
    """One object of each process, in the order of their ranks, the same in all.

    The objects are pickled: tensors in them belong on the CPU.
    """
    if not _shared():
        return [value]
    values: list[T] = [value] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def _shared() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()

"""States moved along a joint step of task matrices, everything else averaged."""

import math
from collections.abc import Callable, Collection, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mloss.merging.entries import Entrywise
from mloss.merging.task_vectors import moved
from mloss.states import State
from mloss.weights import weighted_sum

# The task matrices of one entry in; their joint step out.
JointStep = Callable[[list[Float[Tensor, "out in"]]], Float[Tensor, "out in"]]


def weighted_task_vectors(
    base: State, sources: Sequence[State], key: str, weights: Float[Tensor, " q"]
) -> list[Float[Tensor, "*shape"]]:
    """n w_i (theta_i - theta) of one entry, for the n sources whose weight is not 0.

    At equal weights these are the task vectors themselves. They are formed in float64
    and rounded to the precision of the entry, to float32 where that is coarser.
    """
    origin = base[key]
    precision = torch.promote_types(origin.dtype, torch.float32)
    start = origin.double()
    counted = int((weights > 0).sum())
    return [
        (counted * weight * (source[key].double() - start)).to(precision)
        for source, weight in zip(sources, weights.tolist(), strict=True)
        if weight > 0
    ]


def moved_by_matrix(
    base: State,
    sources: Sequence[State],
    *,
    weights: Float[Tensor, " q"],
    joint: JointStep,
    scale: float,
    exclude: Collection[str],
) -> State:
    """A lazy state: each matrix of base moved by scale * joint(its task matrices).

    What has one axis, or more than two, or is in `exclude` moves by
    scale * sum_i w_i (theta_i - theta). The matrices are those of
    `weighted_task_vectors`. Raises ValueError for a scale that is not finite and for a
    key to exclude that the base does not have.
    """
    if not math.isfinite(scale):
        raise ValueError(f"scale must be finite, got {scale}")
    averaged = excluded(base, exclude)

    def merged(key: str) -> Tensor:
        origin = base[key]
        if origin.ndim == 2 and key not in averaged:
            step = joint(weighted_task_vectors(base, sources, key, weights))
        else:
            start = origin.double()
            step = weighted_sum(
                weights, (source[key].double() - start for source in sources)
            )
        return moved(origin, scale * step.double())

    return Entrywise(base, merged)


def excluded(base: State, exclude: Collection[str]) -> frozenset[str]:
    """The keys that are not to be taken apart, once it is known that base has them.

    Raises ValueError for one that base does not have and TypeError for a single string.
    """
    if isinstance(exclude, str):
        raise TypeError(f"exclude must be a collection of keys, got {exclude!r}")
    known = frozenset(base)
    if unknown := sorted(set(exclude) - known):
        raise ValueError(f"exclude names {unknown[0]!r}, which the base has not")
    return frozenset(exclude)

"""Task vectors theta_i - theta, and states moved along a combination of them."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mloss.merging.entries import Entrywise
from mloss.states import State

# The key of an entry and its task vectors in; its step out.
Combination = Callable[[str, Float[Tensor, "q *shape"]], Float[Tensor, "*shape"]]


def task_vectors(
    base: State, sources: Sequence[State], key: str
) -> Float[Tensor, "q *shape"]:
    """theta_i - theta of one entry for every source model, in float64."""
    origin = base[key].double()
    return torch.stack([source[key].double() - origin for source in sources])


def moved(base: Tensor, step: Tensor) -> Tensor:
    """Add a step in float64 and round once to the precision of base."""
    return (base.double() + step).to(base.dtype)


def moved_by_entry(
    base: State, sources: Sequence[State], *, combine: Combination, scale: float = 1.0
) -> State:
    """A lazy state: each entry of base moved by scale * combine(key, task vectors).

    Raises ValueError for a scale that is not finite.
    """
    if not math.isfinite(scale):
        raise ValueError(f"scale must be finite, got {scale}")

    def merged(key: str) -> Tensor:
        return moved(base[key], scale * combine(key, task_vectors(base, sources, key)))

    return Entrywise(base, merged)

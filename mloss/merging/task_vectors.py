"""Task vectors theta_i - theta, and states moved along a combination of them."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mloss.merging.entries import Entrywise
from mloss.states import State
from mloss.tiles import by_tiles

# The key of an entry and its task vectors in; its step out.
Combination = Callable[[str, Float[Tensor, "q *shape"]], Float[Tensor, "*shape"]]
# A piece of an entry's task vectors, and at what position it begins, in; its step out.
PieceStep = Callable[[Float[Tensor, "q value"], int], Float[Tensor, " value"]]


def task_vectors(
    base: State, sources: Sequence[State], key: str
) -> Float[Tensor, "q *shape"]:
    """theta_i - theta of one entry for every source model, in float64."""
    return _differences(base[key], [source[key] for source in sources])


def _differences(
    origin: Float[Tensor, "*shape"], values: Sequence[Float[Tensor, "*shape"]]
) -> Float[Tensor, "q *shape"]:
    start = origin.double()
    vectors = start.new_empty(len(values), *start.shape)
    for vector, value in zip(vectors, values, strict=True):
        torch.sub(value.double(), start, out=vector)
    return vectors


def moved(base: Tensor, step: Tensor) -> Tensor:
    """Add a step in float64 and round once to the precision of base."""
    return (base.double() + step).to(base.dtype)


def moved_by_entry(
    base: State, sources: Sequence[State], *, combine: Combination, scale: float = 1.0
) -> State:
    """A lazy state: each entry of base moved by scale * combine(key, task vectors).

    Raises ValueError for a scale that is not finite.
    """
    _check_finite(scale)

    def merged(key: str) -> Tensor:
        return moved(base[key], scale * combine(key, task_vectors(base, sources, key)))

    return Entrywise(base, merged)


def moved_by_tiles(
    base: State,
    sources: Sequence[State],
    *,
    combine: Callable[[str], PieceStep],
    scale: float = 1.0,
) -> State:
    """`moved_by_entry` for a step that is known piece by piece of the task vectors.

    `combine(key)` gives the step of an entry's pieces, in flat order. No task vector is
    ever whole in memory.
    """
    _check_finite(scale)

    def merged(key: str) -> Tensor:
        step, origin = combine(key), base[key]
        start, *values = (
            value.reshape(-1) for value in (origin, *(s[key] for s in sources))
        )

        def piece(part: slice) -> Tensor:
            vectors = _differences(start[part], [value[part] for value in values])
            return moved(start[part], scale * step(vectors, part.start))

        return by_tiles(origin, piece)

    return Entrywise(base, merged)


def _check_finite(scale: float) -> None:
    if not math.isfinite(scale):
        raise ValueError(f"scale must be finite, got {scale}")

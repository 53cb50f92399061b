"""The source models that a merge counts."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from mloss.states import State


def counted(
    sources: Sequence[State], weights: Float[Tensor, " q"]
) -> tuple[list[State], Float[Tensor, " some"]]:
    """Sources with a weight above 0, and these weights: where q or a vote matters."""
    some = [s for s, weight in zip(sources, weights.tolist(), strict=True) if weight]
    return some, weights[weights > 0]

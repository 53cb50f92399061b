"""Weighted means of tensors, in float64 and in little memory."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from mloss.tiles import by_tiles
from mloss.weights import weighted_sum


def averaged(
    weights: Float[Tensor, " q"], values: Sequence[Tensor], *, like: Tensor
) -> Tensor:
    """sum_i w_i t_i in float64, rounded once to the precision of `like`."""
    each = [value.reshape(-1) for value in values]
    return by_tiles(
        like,
        lambda part: weighted_sum(weights, (term[part].double() for term in each)),
    )

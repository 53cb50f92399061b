"""The last steps of TIES: elect a sign for each entry and combine who agrees."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mloss.weights import weighted_sum

Combine = Literal["weighted_sum", "disjoint_mean"]


def elect(
    trimmed: Float[Tensor, "q *shape"], weights: Float[Tensor, " q"]
) -> Float[Tensor, "q *shape"]:
    """Trimmed task vectors with zeros where their sign is not the elected one.

    The elected sign of an entry is that of sum_i w_i t_i, the larger weighted mass.
    Where the masses cancel exactly no sign is elected and every source is zeroed.
    """
    elected = weighted_sum(weights, trimmed).sign()
    return trimmed.where(trimmed.sign() == elected, 0)


def combine_elected(
    trimmed: Float[Tensor, "q *shape"],
    weights: Float[Tensor, " q"],
    *,
    combine: Combine,
) -> Float[Tensor, "*shape"]:
    """One step from the trimmed task vectors of q sources, after the election.

    With "weighted_sum" it is sum_i w_i t_i over the sources that agree with the
    elected sign (Algorithm 1, line 22: the others count as zeros). With
    "disjoint_mean" that sum is divided by the weight of the sources that agree (the
    merge of Yadav et al., TIES-Merging). Raises ValueError for any other `combine`.
    """
    if combine not in ("weighted_sum", "disjoint_mean"):
        raise ValueError(
            f"combine must be 'weighted_sum' or 'disjoint_mean', got {combine!r}"
        )
    agreeing = elect(trimmed, weights)
    total = weighted_sum(weights, agreeing)
    if combine == "weighted_sum":
        return total
    mass = weighted_sum(weights, (agreeing != 0).to(trimmed.dtype))
    # Where nobody agrees the total is 0 and stays so.
    return total / torch.where(mass > 0, mass, 1)

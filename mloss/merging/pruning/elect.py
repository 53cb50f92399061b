"""The last steps of TIES: elect a sign for each entry and combine who agrees."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mloss.tiles import by_tiles
from mloss.weights import weighted_sum

Combine = Literal["weighted_sum", "disjoint_mean"]


def combine_elected(
    trimmed: Float[Tensor, "q *shape"] | Sequence[Float[Tensor, "*shape"]],
    weights: Float[Tensor, " q"],
    *,
    combine: Combine,
) -> Float[Tensor, "*shape"]:
    """One step from the trimmed task vectors of q sources, after electing signs.

    The elected sign of an entry is that of sum_i w_i t_i, the larger weighted mass;
    where the masses cancel exactly no sign is elected and the step is zero. With
    "weighted_sum" the step is sum_i w_i t_i over the sources that agree with the
    elected sign (Algorithm 1, line 22: the others count as zeros). With
    "disjoint_mean" that sum is divided by the weight of the sources that agree (the
    merge of Yadav et al., TIES-Merging). Raises ValueError for any other `combine`.
    """
    if combine not in ("weighted_sum", "disjoint_mean"):
        raise ValueError(
            f"combine must be 'weighted_sum' or 'disjoint_mean', got {combine!r}"
        )
    each = [vector.reshape(-1) for vector in trimmed]
    return by_tiles(
        trimmed[0],
        lambda part: _combined([t[part] for t in each], weights, combine=combine),
    )


def _combined(
    trimmed: Sequence[Float[Tensor, " value"]],
    weights: Float[Tensor, " q"],
    *,
    combine: Combine,
) -> Float[Tensor, " value"]:
    elected = weighted_sum(weights, trimmed).sign_()
    # The sizes of those who agree, and zeros for those who do not.
    agreeing = [torch.relu_(vector * elected) for vector in trimmed]
    step = weighted_sum(weights, agreeing).mul_(elected)
    if combine == "weighted_sum":
        return step
    mass = weighted_sum(weights, (size.sign_() for size in agreeing))
    # Where nobody agrees the step is 0 and stays so.
    return step.div_(mass.masked_fill_(mass == 0, 1))

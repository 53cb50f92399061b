"""Fractions of a task vector to keep: RankNorm of Algorithm 1, line 15."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

# Of tied scores: all their mean rank, or each its own, the earlier the lower.
Ranks = Literal["average", "position"]


def keep_rates(
    scores: Float[Tensor, " node"],
    *,
    density: float,
    spread: float,
    ranks: Ranks = "average",
) -> Float[Tensor, " node"]:
    """Keep rates in [density - spread, density], spaced by the rank of the scores.

    The lowest score (M-Loss) keeps `density`, the highest `density - spread`, and
    tied scores share their mean rank unless `ranks` go by "position". A single node
    keeps `density`. The mean rate of several nodes is density - spread/2, whatever
    the scores: a comparison with one uniform rate is fair at that rate. In float64.

    Raises ValueError unless 0 <= spread <= density <= 1 and the scores are finite, and
    for another word for `ranks`.
    """
    check_rates(density, spread=spread)
    if not torch.isfinite(scores).all():
        raise ValueError("scores must be finite, got an infinity or a NaN")
    if ranks not in ("average", "position"):
        raise ValueError(f"ranks must be 'average' or 'position', got {ranks!r}")
    order = average_ranks(scores) if ranks == "average" else _ranks_by_position(scores)
    # Rounding may leave less than nothing where density equals spread.
    return (density - spread * order / max(len(scores) - 1, 1)).clamp(min=0)


def average_ranks(scores: Float[Tensor, " node"]) -> Float[Tensor, " node"]:
    """Rank of each score from 0 for the lowest; tied scores share their mean rank."""
    _, group, size = torch.unique(scores, return_inverse=True, return_counts=True)
    mean_rank: Tensor = size.cumsum(0).double() - (size + 1) / 2
    return mean_rank[group]


def _ranks_by_position(scores: Float[Tensor, " node"]) -> Float[Tensor, " node"]:
    ranks = torch.empty(len(scores), dtype=torch.float64, device=scores.device)
    ranks[scores.argsort(stable=True)] = torch.arange(len(scores)).to(ranks)
    return ranks


def check_rates(density: float, *, spread: float = 0.0) -> None:
    """Raise ValueError unless 0 <= spread <= density <= 1."""
    if not 0 <= density <= 1:
        raise ValueError(f"density must be a fraction in [0, 1], got {density}")
    if not 0 <= spread <= density:
        raise ValueError(
            f"spread must be in [0, density] = [0, {density}], got {spread}"
        )

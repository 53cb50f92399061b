"""TIES-Merging: trim, elect a sign, merge who agrees (Yadav et al. 2023)."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.merging.elect import Combine, combine_elected
from mloss.merging.keep_rates import check_rates
from mloss.merging.registry import merging_method
from mloss.merging.task_vectors import moved_by_entry
from mloss.merging.trim import trim
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights


@merging_method(source="Yadav et al. 2023 (arXiv 2306.01708)")
def ties(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    weights: Weights = None,
    density: float = 0.2,
    scale: float = 1.0,
    combine: Combine = "disjoint_mean",
) -> State:
    """Theta + scale * step, the step by TIES with one budget for each tensor.

    Each task vector keeps the `density` fraction of its entries largest in size
    (`trim`); an entry's sign is elected by weighted mass (`elect`); the sources that
    agree are merged by `combine` (`combine_elected`). At density 0 it is the base.
    Raises ValueError for a density outside [0, 1], another `combine`, and models or
    weights that do not fit.
    """
    check_rates(density)
    start, states = matched(base, sources)
    w = merging_weights(weights, q=len(states))

    def step(_: str, vectors: Float[Tensor, "q *shape"]) -> Float[Tensor, "*shape"]:
        trimmed = torch.stack([trim(vector, density=density) for vector in vectors])
        return combine_elected(trimmed, w, combine=combine)

    return moved_by_entry(start, states, combine=step, scale=scale)

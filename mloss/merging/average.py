"""Simple averaging of the source models."""

from collections.abc import Iterable

from torch import Tensor, nn

from mloss.states import State, matched, mergeable
from mloss.weights import Weights, merging_weights, weighted_sum


def average(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    weights: Weights = None,
) -> dict[str, Tensor]:
    """sum_i w_i theta_i, entry by entry in float64 (paper section 2.1).

    The base only says what the sources must look like. Raises ValueError as
    `mloss.states.matched` and `mloss.weights.merging_weights` do.
    """
    start, states = matched(base, sources)
    w = merging_weights(weights, q=len(states))
    return {
        key: weighted_sum(w, (s[key].double() for s in states)).to(value.dtype)
        if mergeable(value)
        else value.clone()
        for key, value in start.items()
    }

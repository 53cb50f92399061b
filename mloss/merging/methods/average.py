"""Simple averaging of the source models."""

from collections.abc import Iterable

from torch import Tensor, nn

from mloss.averaging import averaged
from mloss.merging.entries import Entrywise
from mloss.merging.registry import merging_method
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights


@merging_method(source="Wortsman et al. 2022, Model soups (arXiv 2203.05482)")
def average(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    weights: Weights = None,
) -> State:
    """sum_i w_i theta_i, entry by entry in float64 (paper section 2.1).

    The base only says what the sources must look like. Raises ValueError as
    `mloss.states.matched` and `mloss.weights.merging_weights` do.
    """
    start, states = matched(base, sources)
    w = merging_weights(weights, q=len(states))

    def merged(key: str) -> Tensor:
        return averaged(w, [state[key] for state in states], like=start[key])

    return Entrywise(start, merged)

"""LiNeS: scale a merge's step by the depth of its layer (Wang et al. 2024)."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mloss.merging.depth import relative_depths
from mloss.merging.entries import Entrywise
from mloss.merging.registry import merging_method
from mloss.merging.task_vectors import moved
from mloss.merging.underlying import underlying
from mloss.states import State, matched, mergeable
from mloss.streaming import placed
from mloss.weights import Weights, merging_weights


@merging_method(source="Wang et al. 2024 (arXiv 2410.17146)")
def lines(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    weights: Weights = None,
    alpha: float | None = None,
    beta: float = 1.0,
    of: str = "task_arithmetic",
    of_options: Mapping[str, Any] | None = None,
) -> State:
    """Theta + (alpha + beta * l / (L - 1)) * step in block l = 0 .. L - 1 of L.

    The step is that of the merge by the method `of` with `of_options`. Depth is read
    from the names (`relative_depths`); what is in no block, before or after, is scaled
    by alpha, as in the authors' program. None is their alpha: the 1-norm of
    sum_i w_i (theta_i - theta) over that of the step, both of the whole model; for
    `task_arithmetic`, whose step it is, that is 1. They search beta on validation
    data, and theirs multiplies a sum of task vectors where ours multiplies their mean:
    for the same merge ours is q times theirs. At 1 and 1 the last block's step counts
    twice.

    Raises ValueError for an alpha or beta that is not finite, for `of` as `underlying`
    does, and for models or weights that do not fit.
    """
    if not math.isfinite(beta) or not math.isfinite(alpha or 0):
        raise ValueError(
            f"alpha and beta must be finite, got alpha = {alpha}, beta = {beta}"
        )
    start, states = matched(base, sources)
    w = merging_weights(weights, q=len(states))
    exact, *others = (placed(state, dtype=torch.float64) for state in (start, *states))
    merge = underlying(of, exact, others, weights=w, options=of_options)
    if alpha is None and (of, of_options) == ("task_arithmetic", None):
        alpha = 1.0
    elif alpha is None:
        mean = underlying("average", exact, others, weights=w, options=None)
        alpha = _ratio_of_steps(exact, mean, merge)
    first, depths = alpha, relative_depths(start)

    def scaled(key: str) -> Tensor:
        step = merge[key] - exact[key]
        return moved(start[key], (first + beta * depths[key]) * step)

    return Entrywise(start, scaled)


def _ratio_of_steps(base: State, one: State, other: State) -> float:
    """The 1-norm of the step from base to one state over that to another.

    It is 1 where the other does not move.
    """
    norms = torch.zeros(2, dtype=torch.float64)
    for key, origin in base.items():
        if mergeable(origin):
            steps = (one[key] - origin, other[key] - origin)
            norms += torch.stack([step.abs().sum() for step in steps]).cpu()
    to_one, to_other = norms.tolist()
    return to_one / to_other if to_other > 0 else 1.0

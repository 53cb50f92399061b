"""DARE as M-Loss describes it: TIES with its trimming left to chance."""

from collections.abc import Iterable
from functools import partial

import torch
from torch import nn

from mloss.merging.pruning.drop import dropped_and_combined
from mloss.merging.pruning.elect import Combine, combine_elected
from mloss.merging.pruning.node_rates import NodeRates
from mloss.merging.registry import merging_method
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights


@merging_method(source="Yu et al. 2024 (arXiv 2311.03099)")
def dare(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    generator: torch.Generator,
    weights: Weights = None,
    density: float = 0.2,
    scale: float = 1.0,
    combine: Combine = "disjoint_mean",
    rates: NodeRates | None = None,
) -> State:
    """`ties` with its trimming replaced as section 2.3 of the M-Loss paper describes.

    Each entry of a task vector is kept with probability `density` and then divided by
    it, so that its mean is unchanged; election and combination are those of `ties`.
    Elsewhere DARE is this dropping alone: with task arithmetic after it
    (`dare_linear`), or with the whole of TIES (`dare_ties`). Nodes with `rates` are
    kept by these. Raises ValueError for a density outside (0, 1] and as `ties` does,
    and TypeError for another kind of generator.
    """
    start, states = matched(base, sources)
    w = merging_weights(weights, q=len(states))
    return dropped_and_combined(
        start,
        states,
        generator=generator,
        density=density,
        combine=partial(combine_elected, weights=w, combine=combine),
        scale=scale,
        rates=rates,
    )

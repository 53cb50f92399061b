"""M-DARE: DARE with keep rates ranked by node M-Loss."""

from collections.abc import Iterable
from functools import partial

import torch
from torch import nn

from mloss.batches import Data
from mloss.merging.pruning.drop import Chance, dropped_step
from mloss.merging.pruning.elect import Combine, combine_elected
from mloss.merging.pruning.guided import Reading, guided
from mloss.merging.registry import METHODS, merging_method
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights


@merging_method(
    source="Wang et al. 2026, M-Loss, with the pruning of Yu et al. 2024",
    needs=("model", "data"),
)
def m_dare(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    model: nn.Module,
    data: Data,
    generator: torch.Generator,
    weights: Weights = None,
    density: float = 0.2,
    spread: float = 0.1,
    scale: float = 1.0,
    combine: Combine = "disjoint_mean",
    layers: str = "all",
    tokens: int | None = None,
) -> State:
    """`dare` whose nodes keep more at random the lower their M-Loss.

    Rates are those of `m_ties`. An entry of a row with rate r is kept with
    probability r and divided by it, so that its mean is unchanged; election,
    combination and everything that is no site are as in `dare`. Raises ValueError as
    `m_ties` and `dare` do, and where density equals spread: a rate of zero cannot be
    made up for.
    """
    if not density > spread:
        raise ValueError(
            f"density must be above spread = {spread}, got {density}: a node that "
            "keeps nothing cannot be rescaled"
        )
    start, states = matched(base, sources)
    w = merging_weights(weights, q=len(states))
    chance = Chance(generator, q=len(states))
    elected = partial(combine_elected, weights=w, combine=combine)
    rest = METHODS["dare"].lazily(
        start,
        states,
        generator=generator,
        weights=w,
        density=density,
        scale=scale,
        combine=combine,
    )
    return guided(
        start,
        states,
        model=model,
        data=data,
        weights=w,
        density=density,
        spread=spread,
        rest=rest,
        step=dropped_step(chance, combine=elected),
        reading=Reading(layers=layers, tokens=tokens),
        scale=scale,
    )

"""DARE before TIES-Merging (Yu et al. 2024, Yadav et al. 2023)."""

from collections.abc import Iterable

import torch
from torch import nn

from mloss.merging.entries import Entrywise
from mloss.merging.pruning.drop import dropped_sources
from mloss.merging.pruning.elect import Combine
from mloss.merging.pruning.global_trim import Trimming
from mloss.merging.registry import METHODS, merging_method
from mloss.states import State, matched
from mloss.streaming import placed
from mloss.weights import Weights, merging_weights


@merging_method(source="Yu et al. 2024 (arXiv 2311.03099)")
def dare_ties(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    generator: torch.Generator,
    weights: Weights = None,
    density: float = 0.2,
    trimmed_to: float = 1.0,
    trimming: Trimming = "tensor",
    scale: float = 1.0,
    combine: Combine = "weighted_sum",
) -> State:
    """`ties` of source models that have been dropped from and rescaled.

    Each entry of a task vector is kept with probability `density` and divided by it.
    What is left goes through the whole of TIES: `trimmed_to`, its density, is 1 as in
    dare_ties of mergekit (which rescales a tensor to the 1-norm it had rather than by
    `density`, and calls the disjoint mean "normalize"); the authors' programs and
    FusionBench trim the whole model once more, to 0.2 of its entries, and sum over
    the sources that agree (scaling_factor is scale * w_i). It takes no rates of nodes:
    `dare` does, which with combine="weighted_sum" is this method at `trimmed_to` 1, by
    other draws. Raises ValueError for a
    density outside (0, 1], a trimmed_to outside [0, 1] and as `ties` does, and
    TypeError for another kind of generator.
    """
    if not 0 <= trimmed_to <= 1:
        raise ValueError(
            "trimmed_to, the density of TIES, must be a fraction in [0, 1], "
            f"got {trimmed_to}"
        )
    start, states = matched(base, sources)
    w = merging_weights(weights, q=len(states))
    merge = METHODS["ties"].lazily(
        placed(start, dtype=torch.float64),
        dropped_sources(start, states, generator=generator, density=density),
        weights=w,
        density=trimmed_to,
        trimming=trimming,
        scale=scale,
        combine=combine,
    )
    return Entrywise(start, lambda key: merge[key].to(start[key].dtype))

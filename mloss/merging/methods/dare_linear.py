"""DARE before task arithmetic (Yu et al. 2024)."""

from collections.abc import Iterable
from functools import partial

import torch
from torch import nn

from mloss.merging.pruning.drop import dropped_and_combined
from mloss.merging.pruning.node_rates import NodeRates
from mloss.merging.registry import merging_method
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights, weighted_sum


@merging_method(source="Yu et al. 2024 (arXiv 2311.03099)")
def dare_linear(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    generator: torch.Generator,
    weights: Weights = None,
    density: float = 0.2,
    scale: float = 1.0,
    rates: NodeRates | None = None,
) -> State:
    """Theta + scale * sum_i w_i d_i, d_i the task vectors dropped from and rescaled.

    Each entry is kept with probability `density` and divided by it, so that the mean
    over the drops is `task_arithmetic`. It is dare_linear of mergekit, which rescales
    a tensor to the 1-norm it had rather than by the density, and dare_task_arithmetic
    of FusionBench, whose scaling_factor is scale * w_i. Nodes with `rates` are kept by
    these. Raises ValueError for a density outside (0, 1], a scale that is not finite
    and models, weights or rates that do not fit, and TypeError for another kind of
    generator.
    """
    start, states = matched(base, sources)
    w = merging_weights(weights, q=len(states))
    return dropped_and_combined(
        start,
        states,
        generator=generator,
        density=density,
        combine=partial(weighted_sum, w),
        scale=scale,
        rates=rates,
    )

"""Merges of the eight experts: from TIES to M-TIES, one change at a time.

M-TIES differs from TIES in more than its use of M-Loss. "ties" is the method as
published; "ties_weighted_sum" counts a source that loses the election as zero, as
Algorithm 1 does; "ties_matched" also keeps as much of the site layers as M-TIES does on
average; "uniform_rate" trims them row by row at that one rate; and "m_ties" lets M-Loss
choose which rows keep more. Where "reversed_ranks" and "random_ranks_<n>" choose
otherwise at the same densities, the choice is all that differs from "m_ties".
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from mloss.digits.models import DigitsModels
from mloss.merging import average, m_ties, row_wise_ties, ties
from mloss.pre_activations import node_parameters
from mloss.score import score
from mloss.sites import find_sites
from mloss.states import State

CONTROLS = ("uniform_rate", "reversed_ranks", "random_ranks")


def merge_candidates(
    models: DigitsModels,
    *,
    learning_rate: float,
    density: float,
    spread: float,
    random_draws: int,
    generator: torch.Generator,
) -> dict[str, dict[str, Tensor]]:
    """Merge the experts of one learning rate; states by name of the method.

    M-Loss is measured on 128 unlabelled images. The methods are "average" and those
    of this module, with `random_draws` of "random_ranks_<n>".
    """
    base, model, images = models.base, models.encoder(), models.unlabelled()
    experts = [tuned.state for tuned in models.experts(learning_rate)]
    layers = {
        site.layer: node_parameters(model, site) for site in find_sites(model, images)
    }

    def reversed_ranks(merged: State, layer: str) -> Float[Tensor, " node"]:
        scored = score(merged, experts, images, model=model, inputs="base")
        return -next(site.node for site in scored.sites if site.layer_name == layer)

    def random_ranks(merged: State, layer: str) -> Float[Tensor, " node"]:
        return torch.rand(len(merged[f"{layer}.weight"]), generator=generator)

    def one_rate(merged: State, layer: str) -> Float[Tensor, " node"]:
        # Tied scores share their mean rank, and so the mean keep rate.
        return torch.zeros(len(merged[f"{layer}.weight"]))

    row_wise = partial(
        row_wise_ties, base, experts, layers=layers, density=density, spread=spread
    )
    by_sum = partial(ties, base, experts, combine="weighted_sum")
    at_mean_density = by_sum(density=density - spread / 2)
    site_keys = [key for keys in layers.values() for key in keys]
    merges = {
        "average": average(base, experts),
        "ties": ties(base, experts, density=density),
        "ties_weighted_sum": by_sum(density=density),
        "ties_matched": by_sum(density=density)
        | {key: at_mean_density[key] for key in site_keys},
        "uniform_rate": row_wise(scores=one_rate),
        "m_ties": m_ties(
            base, experts, model=model, data=images, density=density, spread=spread
        ),
        "reversed_ranks": row_wise(scores=reversed_ranks),
    }
    for draw in range(1, random_draws + 1):
        merges[f"random_ranks_{draw}"] = row_wise(scores=random_ranks)
    return merges

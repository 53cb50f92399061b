"""The nodes where the models conflict most."""

from dataclasses import dataclass
from itertools import chain

import torch

from mloss.report.numbers import finite
from mloss.score import QUANTILES, Score, SiteScore


@dataclass(frozen=True)
class WorstNode:
    """A node with its M-Loss, the standard error and the quantiles over samples.

    `times_median` is its M-Loss over the median of its layer's nodes, None where that
    is zero; `density_prediction` is None where there is none.
    """

    layer: str
    node: int
    mloss: float
    stderr: float | None
    q05: float
    q95: float
    density_prediction: float | None
    times_median: float | None


def worst_nodes(score: Score, *, count: int = 10) -> tuple[WorstNode, ...]:
    """The `count` nodes of largest M-Loss of all layers, or as many as there are.

    Raises ValueError for a negative count.
    """
    if count < 0:
        raise ValueError(f"count must be >= 0, got {count}")
    each = chain.from_iterable(_worst(site, count) for site in score.sites)
    return tuple(sorted(each, key=lambda node: -node.mloss)[:count])


def _worst(site: SiteScore, count: int) -> list[WorstNode]:
    places = torch.topk(site.node, min(count, len(site.node))).indices.tolist()
    return [_node(site, place) for place in places]


def _node(site: SiteScore, place: int) -> WorstNode:
    median, mloss = site.node.median().item(), site.node[place].item()
    low, high = (
        site.node_quantiles[QUANTILES.index(level), place].item()
        for level in (0.05, 0.95)
    )
    density = site.density_prediction
    return WorstNode(
        layer=site.layer_name,
        node=place,
        mloss=mloss,
        stderr=finite(site.node_stderr[place].item()),
        q05=low,
        q95=high,
        density_prediction=None if density is None else density[place].item(),
        times_median=mloss / median if median > 0 else None,
    )

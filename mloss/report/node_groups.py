"""Node M-Loss averaged over groups of nodes, layer by layer (the paper's Figure 3)."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mloss.score import Score

# Columns of the map: more are too thin to see.
_MOST_GROUPS = 64


@dataclass(frozen=True)
class NodeGroups:
    """Mean M-Loss of each group of `size` nodes, one array [group] a layer.

    Layers have as many groups as their nodes fill; the last may hold fewer nodes.
    """

    means: tuple[NDArray[np.float64], ...]
    size: int


def node_groups(score: Score, *, by_loss: bool = False) -> NodeGroups:
    """Group each layer's nodes in their order or, with `by_loss`, the worst first.

    The size is 1, 2, 5, 10, 20, 50 and so on, the least that gives the widest layer at
    most 64 groups: 50 for the 3072 nodes of ViT-B, as in the paper.
    """
    rows = [site.node.cpu().double().numpy() for site in score.sites]
    if by_loss:
        rows = [np.sort(row)[::-1] for row in rows]
    size = _group_size(max(map(len, rows)))
    return NodeGroups(tuple(_means(row, size) for row in rows), size)


def _group_size(nodes: int) -> int:
    least = nodes / _MOST_GROUPS
    decade: int = 10 ** max(math.floor(math.log10(least)), 0)
    return next(size for d in (1, 2, 5, 10) if (size := d * decade) >= least)


def _means(row: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    starts = np.arange(0, len(row), size)
    held = np.diff(np.append(starts, len(row)))
    means: NDArray[np.float64] = np.add.reduceat(row, starts) / held
    return means

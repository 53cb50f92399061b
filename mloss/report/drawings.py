"""The figures of a score."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from figures.heat_map import heat_map
from figures.node_predictions import NodeCloud, node_predictions
from figures.rendering import save
from mloss.agreement import PREDICTIONS, predictions
from mloss.report.layer_names import layer_names
from mloss.report.node_groups import node_groups
from mloss.score import Score


def write_heat_map(score: Score, folder: Path) -> list[Path]:
    """Write heat_map.png and heat_map.svg into a folder, each whole or not at all."""
    return save(loss_map(score), "heat_map", out=folder)


def loss_map(score: Score, *, by_loss: bool = False) -> Figure:
    """Map node M-Loss by layer and group of nodes, as the paper's Figure 3 does.

    Nodes are in their order or, with `by_loss`, the worst of each layer first.
    """
    groups = node_groups(score, by_loss=by_loss)
    names = layer_names([site.layer_name for site in score.sites])
    nodes = "node" if groups.size == 1 else f"group of {groups.size} nodes"
    return heat_map(
        groups.means,
        layers=list(names.short.values()),
        columns=f"{nodes}, {'the worst first' if by_loss else 'in order'}",
        label="mean node M-Loss",
    )


def prediction_clouds(score: Score, *, step: int = 1) -> Figure | None:
    """Measured over predicted M-Loss of every `step`-th node, None without any."""
    clouds = [c for name in PREDICTIONS for c in _cloud(score, name, step=step)]
    return node_predictions(clouds) if clouds else None


def _cloud(score: Score, name: str, *, step: int) -> list[NodeCloud]:
    """One prediction at the nodes that have it; none where all of them are zero."""
    numbered = enumerate(score.sites, start=1)
    known = [(place, s) for place, s in numbered if name in predictions(s)]
    if not known:
        return []
    measured = _every([site.node for _, site in known], step)
    predicted = _every([predictions(site)[name] for _, site in known], step)
    if not ((measured > 0) & (predicted > 0)).any():
        return []
    places, counts = zip(*((place, len(s.node)) for place, s in known), strict=True)
    layer = np.repeat(places, counts)[::step]
    return [NodeCloud(name, predicted, measured, layer)]


def _every(parts: list[Tensor], step: int) -> NDArray[np.float64]:
    """Each `step`-th of the values of all parts."""
    values: NDArray[np.float64] = np.concatenate([p.cpu().double() for p in parts])
    return values[::step]

"""Predicted against measured M-Loss, node by node."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from figures.style import GREY, PAGE_WIDTH, SEQUENTIAL, styled

Array: TypeAlias = npt.NDArray[np.float64]

PANELS_A_ROW = 4
FEW_DECADES = 300.0


@dataclass(frozen=True)
class NodeCloud:
    """One prediction at the nodes that have it; all arrays [node].

    `layer` counts the layers from 1.
    """

    title: str
    predicted: Array
    measured: Array
    layer: npt.NDArray[np.int64]


@styled
def node_predictions(clouds: Sequence[NodeCloud]) -> Figure:
    """Scatter measured over predicted node M-Loss, a panel a prediction, log scales.

    On the grey line the two are equal. Colour is the layer's place in forward order.
    Nodes where either is zero have no place on the scales and are left out.
    """
    columns = min(PANELS_A_ROW, len(clouds))
    rows = -(-len(clouds) // columns)
    width = 0.5 + (PAGE_WIDTH - 0.5) * columns / PANELS_A_ROW
    fig = Figure(figsize=(width, 0.4 + 1.7 * rows), layout="constrained")
    axes = fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for ax in axes.flat[len(clouds) :]:
        ax.remove()
    last = max(int(cloud.layer.max()) for cloud in clouds)
    layers = ScalarMappable(Normalize(1, max(last, 2)), SEQUENTIAL)
    for ax, cloud in zip(axes.flat, clouds, strict=False):
        _draw(ax, cloud, layers)
    for ax in axes[:, 0]:
        ax.set_ylabel("measured")
    for axis in (axes[0, 0].xaxis, axes[0, 0].yaxis):
        _few_ticks(axis)
    whole = MaxNLocator(integer=True)
    fig.colorbar(layers, ax=fig.axes, label="layer", ticks=whole, aspect=20, pad=0.015)
    return fig


def _draw(ax: Axes, cloud: NodeCloud, layers: ScalarMappable) -> None:
    shown = (cloud.predicted > 0) & (cloud.measured > 0)
    x, y = cloud.predicted[shown], cloud.measured[shown]
    ax.scatter(
        x,
        y,
        s=2,
        c=layers.to_rgba(cloud.layer[shown]),
        alpha=0.5,
        linewidths=0,
        rasterized=True,
    )
    if len(x):
        ends = [min(x.min(), y.min()), max(x.max(), y.max())]
        ax.plot(ends, ends, color=GREY, linewidth=0.8)
    ax.set(xscale="log", yscale="log", xlabel="predicted", title=cloud.title)


def _few_ticks(axis: Axis) -> None:
    """Label 1 and 3 of every decade where there are few decades, else some powers."""
    low, high = axis.get_view_interval()
    if high <= FEW_DECADES * low:
        axis.set_major_locator(LogLocator(subs=(1, 3)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())

"""Merging random networks: M-Loss by layer, and the gap over sigma and depth."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.style import BLUE, GREEN, GREY, ORANGE, PAGE_WIDTH, PURPLE, styled

Array: TypeAlias = npt.NDArray[np.float64]

GAP_TICKS = (0.5, 1, 2, 5, 10, 20, 50)
LINES = ((GREEN, "-"), (ORANGE, "--"), (PURPLE, ":"))
STYLES: tuple[Literal["-", "--"], ...] = ("-", "--")  # of what the layers are fed
LOOKS = ((BLUE, "o"), (ORANGE, "^"), (GREY, "s"))


@dataclass(frozen=True)
class LayerLosses:
    """One activation's node M-Loss by layer, in units of sigma^2; arrays [layer].

    `predicted` maps the names of three predictions to their values.
    """

    title: str
    measured: Array
    stderr: Array
    predicted: Mapping[str, Array]


@dataclass(frozen=True)
class GapSeries:
    """One activation's gap in units of sigma^2, and the shares of M-Loss in it.

    `x`, `gap` and `stderr` are [point]; `predicted` is the limit of wide networks at
    `predicted_x` [curve]. `shares` maps what the layers are fed, two at most, to
    values [point]; a network without M-Loss needs none.
    """

    label: str
    x: Array
    gap: Array
    stderr: Array
    predicted_x: Array
    predicted: Array
    shares: Mapping[str, Array]


@styled
def random_networks(
    losses: Sequence[LayerLosses],
    *,
    over_sigma: Sequence[GapSeries],
    over_depth: Sequence[GapSeries],
) -> Figure:
    """Node M-Loss of two activations; gap and M-Loss's share over sigma and depth.

    Bars are two standard errors over networks. The gap's lines are predictions.
    """
    fig = Figure(figsize=(PAGE_WIDTH, 4.4), layout="constrained")
    axes = fig.subplots(2, 3)
    for ax, one in zip(axes[:, 0], losses, strict=True):
        _draw_losses(ax, one)
    axes[0, 0].legend(loc="upper left")
    for column, series in enumerate((over_sigma, over_depth), 1):
        _draw_gaps(axes[0, column], series)
        _draw_shares(axes[1, column], series)
    axes[0, 1].legend(loc="upper right")
    axes[1, 1].set_xlabel(r"$\sigma$")
    axes[1, 2].set_xlabel("hidden layers")
    _explain_styles(axes[1, 2], over_depth[0].shares)
    for ax in axes[:, 2]:
        ax.set_xticks(over_depth[0].x, [f"{depth:g}" for depth in over_depth[0].x])
        ax.minorticks_off()
    return fig


def _draw_losses(ax: Axes, losses: LayerLosses) -> None:
    layers = np.arange(1, len(losses.measured) + 1)
    for (color, style), (label, values) in zip(
        LINES, losses.predicted.items(), strict=False
    ):
        ax.plot(layers, values, style, color=color, label=label)
    bars = 2 * losses.stderr
    ax.errorbar(layers, losses.measured, bars, fmt="o", color=BLUE, label="measured")
    ax.set(title=losses.title, xlabel="layer", xticks=layers)
    room = 1.5 * max(values.max() for values in losses.predicted.values())
    ax.set(ylabel=r"node M-Loss / $\sigma^2$", ylim=(0, room))


def _draw_gaps(ax: Axes, series: Sequence[GapSeries]) -> None:
    for (color, marker), one in zip(LOOKS, series, strict=False):
        ax.plot(one.predicted_x, one.predicted, color=color)
        bars = 2 * one.stderr
        ax.errorbar(one.x, one.gap, bars, fmt=marker, color=color, label=one.label)
    ax.set(xscale="log", yscale="log", ylabel=r"output gap / $\sigma^2$")
    ends = ax.get_ylim()
    ax.set_yticks(GAP_TICKS, [f"{tick:g}" for tick in GAP_TICKS])
    ax.set_yticks([], minor=True)
    ax.set_ylim(ends)


def _draw_shares(ax: Axes, series: Sequence[GapSeries]) -> None:
    for (color, marker), one in zip(LOOKS, series, strict=False):
        for style, share in zip(STYLES, one.shares.values(), strict=False):
            ax.plot(one.x, share, style, marker=marker, color=color, label=one.label)
    ax.set(xscale="log", ylim=(-0.03, 1), ylabel="share of M-Loss in the gap")


def _explain_styles(ax: Axes, names: Iterable[str]) -> None:
    handles = [
        Line2D([], [], color=GREY, linestyle=style, label=name)
        for style, name in zip(STYLES, names, strict=False)
    ]
    ax.legend(handles=handles, loc="center right")

"""Simulation against theory over k/sigma."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.style import BLACK, BLUE, GREEN, ORANGE, PAGE_WIDTH, PURPLE, styled

Array: TypeAlias = npt.NDArray[np.float64]

COLORS = (BLUE, ORANGE, GREEN, PURPLE)
SPREAD = 0.4  # decades between the first and the last mark of one k/sigma


@dataclass(frozen=True)
class Differences:
    """Simulation over theory, less 1, at each k/sigma, and half its interval's width.

    All of shape [m].
    """

    ratio: Array
    difference: Array
    half_width: Array


@styled
def agreement(panels: Mapping[str, Mapping[str, Differences]]) -> Figure:
    """Draw relative differences in per mille: a panel for each title, a mark a label.

    Marks of one k/sigma stand side by side. Panels share their axes and the labels
    their colours.
    """
    fig = Figure(figsize=(PAGE_WIDTH, 2.3), layout="constrained")
    axes = fig.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for ax, (title, series) in zip(axes, panels.items(), strict=True):
        ax.set(title=title, xscale="log", xlabel=r"$k/\sigma$")
        ax.axhline(0, color=BLACK, linewidth=0.6)
        _draw_series(ax, series)
    axes[0].set_ylabel("simulation above\ntheory (per mille)")
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return fig


def _draw_series(ax: Axes, series: Mapping[str, Differences]) -> None:
    shifts = 10 ** np.linspace(-SPREAD / 2, SPREAD / 2, len(series))
    for (label, found), shift, color in zip(
        series.items(), shifts, cycle(COLORS), strict=False
    ):
        ax.errorbar(
            found.ratio * shift,
            1e3 * found.difference,
            yerr=1e3 * found.half_width,
            fmt="o",
            color=color,
            elinewidth=0.8,
            label=label,
        )

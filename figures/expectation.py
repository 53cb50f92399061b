"""Expected M-Loss: the exact value beside simulation and the printed formulas."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    MAGNITUDE,
    ORANGE,
    PAGE_WIDTH,
    styled,
)

Array: TypeAlias = npt.NDArray[np.float64]

LIMIT_LABEL = r"TV/8, the limit as $\sigma \to 0$"
PERCENT = (20, 50, 100, 200, 500, 1000)  # contours and colour-bar ticks
PERCENT_RANGE = (20, 3000)  # of the colours; beyond lies where sigma exceeds k


@dataclass(frozen=True)
class Curves:
    """One panel of `expectation`; every value is k E[D] / sigma^2, without units.

    `ratio` [m] is k/sigma, with `exact` [m] and each entry of `printed` [m] on it;
    `simulated` and `stderr` [p] lie on `simulated_ratio` [p]. `limit` is where the
    exact value goes as sigma vanishes at fixed k.
    """

    title: str
    ratio: Array
    exact: Array
    printed: Mapping[str, Array]
    simulated_ratio: Array
    simulated: Array
    stderr: Array
    limit: float


@dataclass(frozen=True)
class ErrorMap:
    """One panel of `approximation_error`.

    `error` [sigma, k] is printed/exact - 1 on the grid of `k` [k] and `sigma` [sigma].
    """

    title: str
    k: Array
    sigma: Array
    error: Array


@styled
def expectation(rows: Sequence[Sequence[Curves]]) -> Figure:
    """Draw the exact k E[D]/sigma^2 against the printed formulas and a simulation.

    One panel each, in rows of equal length that share all axes. Bars are two
    standard errors either way.
    """
    size = (PAGE_WIDTH, 0.5 + 1.75 * len(rows))
    fig = Figure(figsize=size, layout="constrained")
    axes = fig.subplots(
        len(rows), len(rows[0]), sharex=True, sharey=True, squeeze=False
    )
    for ax_row, row in zip(axes, rows, strict=True):
        ax_row[0].set_ylabel(r"$k\,E[D]/\sigma^2$")
        for ax, curves in zip(ax_row, row, strict=True):
            _draw_curves(ax, curves)
    for ax in axes[-1]:
        ax.set_xlabel(r"$k/\sigma$")
    axes[0, 0].set(xscale="log", yscale="log", ylim=(0.06, 3))
    _plain_ticks(axes[0, 0], (0.125, 0.25, 0.5, 1, 2))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return fig


def _draw_curves(ax: Axes, curves: Curves) -> None:
    ax.set_title(curves.title)
    looks = cycle(((ORANGE, "--"), (GREEN, "-.")))
    for name, values in curves.printed.items():
        color, dashes = next(looks)
        ax.plot(curves.ratio, values, color=color, linestyle=dashes, label=name)
    ax.plot(curves.ratio, curves.exact, color=BLUE, label="exact")
    ax.errorbar(
        curves.simulated_ratio,
        curves.simulated,
        yerr=2 * curves.stderr,
        fmt="o",
        color=BLACK,
        markerfacecolor="white",
        markeredgewidth=0.8,
        elinewidth=0.8,
        zorder=3,
        label="simulation",
    )
    ax.axhline(
        curves.limit, color=GREY, linewidth=0.8, linestyle=":", label=LIMIT_LABEL
    )


def _plain_ticks(ax: Axes, values: Sequence[float]) -> None:
    ax.yaxis.set_major_locator(FixedLocator(values))
    ax.yaxis.set_major_formatter(FixedFormatter([f"{v:g}" for v in values]))
    ax.yaxis.set_minor_locator(NullLocator())


@styled
def approximation_error(maps: Sequence[ErrorMap]) -> Figure:
    """Map how far the printed formula lies above the exact value, over (k, sigma).

    Colour is the relative error on one logarithmic scale for all panels; contours
    are labelled in per cent, and each panel states its least error. On the dashed
    line sigma = k; the formulas are meant for well below it.
    """
    fig = Figure(figsize=(PAGE_WIDTH, 2.5), layout="constrained")
    axes = fig.subplots(1, len(maps), sharey=True, squeeze=False)[0]
    for ax, error_map in zip(axes, maps, strict=True):
        mesh = _draw_error(ax, error_map)
    axes[0].set_ylabel(r"$\sigma$")
    bar = fig.colorbar(
        mesh, ax=list(axes), extend="max", label="printed above exact (%)"
    )
    _plain_ticks(bar.ax, PERCENT)
    return fig


def _draw_error(ax: Axes, error_map: ErrorMap) -> QuadMesh:
    k, sigma, percent = error_map.k, error_map.sigma, 100 * error_map.error
    # The labels' angles are taken from the scales in force when they are drawn.
    ax.set(title=error_map.title, xscale="log", yscale="log", xlabel="$k$")
    mesh = ax.pcolormesh(
        k,
        sigma,
        percent,
        norm=LogNorm(*PERCENT_RANGE),
        shading="gouraud",
        rasterized=True,
        cmap=MAGNITUDE,
    )
    lines = ax.contour(k, sigma, percent, PERCENT, colors=BLACK, linewidths=0.6)
    ax.clabel(lines, fmt="%g %%", fontsize=6)
    ax.axline((1, 1), (10, 10), color=BLACK, linewidth=0.6, linestyle="--")
    ax.set(xlim=k[[0, -1]], ylim=sigma[[0, -1]])
    ax.text(
        0.96,
        0.06,
        f"at least {percent.min():.0f} %",
        ha="right",
        transform=ax.transAxes,
    )
    return mesh

"""Where the total-variation law is good, over k and sigma."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from figures.style import BLACK, GREY, ORANGE, PAGE_WIDTH, styled

Array: TypeAlias = npt.NDArray[np.float64]

LEVELS = (1, 5, 10)  # per cent
SHADES = ("#08519c", "#6baed6", "#c6dbef")  # good to 1, 5 and 10 %


@dataclass(frozen=True)
class Region:
    """One panel of `validity`.

    `excess` [sigma, k] is the law over the exact value, less 1, on the grid of `k` [k]
    and `sigma` [sigma]. `predicted` [level, k] is the sigma at which the next order
    puts each of LEVELS; zero or infinite where it puts it nowhere.
    """

    title: str
    k: Array
    sigma: Array
    excess: Array
    predicted: Array


@styled
def validity(regions: Sequence[Region]) -> Figure:
    """Shade where the law is within 1, 5 and 10 % of the exact E[D].

    Dashes are the next order's prediction of where a shade ends; sigma = k is dotted.
    """
    fig = Figure(figsize=(PAGE_WIDTH, 2.6), layout="constrained")
    axes = fig.subplots(1, len(regions), sharex=True, sharey=True, squeeze=False)[0]
    for ax, region in zip(axes, regions, strict=True):
        _draw_region(ax, region)
    axes[0].set_ylabel(r"$\sigma$")
    handles: list[Artist] = [
        Patch(color=shade, label=f"within {level} %")
        for level, shade in zip(LEVELS, SHADES, strict=True)
    ]
    handles += [
        Line2D([], [], color=ORANGE, linestyle="--", label="next order"),
        Line2D([], [], color=GREY, linestyle=":", label=r"$\sigma = k$"),
    ]
    fig.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return fig


def _draw_region(ax: Axes, region: Region) -> None:
    ax.set(title=region.title, xscale="log", yscale="log", xlabel="$k$")
    percent = 100 * np.maximum(region.excess, 0)  # the least of them are rounding
    grid = (region.k, region.sigma, percent)
    ax.contourf(*grid, (-1, *LEVELS), colors=SHADES)
    ax.contour(*grid, LEVELS, colors=BLACK, linewidths=0.8)
    for level, sigma in zip(LEVELS, region.predicted, strict=True):
        shown = np.where((sigma > 0) & np.isfinite(sigma), sigma, np.nan)
        label = f"next order, {level} %"
        ax.plot(region.k, shown, "--", color=ORANGE, linewidth=0.8, label=label)
    ax.plot(region.k, region.k, ":", color=GREY, linewidth=0.8)
    ax.set(xlim=region.k[[0, -1]], ylim=region.sigma[[0, -1]])

"""What merging does to a real network: where M-Loss sits, what predicts the gap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from figures.style import (
    BLUE,
    COLUMN_WIDTH,
    GREEN,
    GREY,
    ORANGE,
    PAGE_WIDTH,
    PURPLE,
    SEQUENTIAL,
    styled,
)

Array: TypeAlias = npt.NDArray[np.float64]

PANELS_A_ROW = 3
ROW_OFFSET = 0.25  # so that the bars of two series do not hide each other
LOOKS = ((BLUE, "o"), (ORANGE, "^"), (GREEN, "s"), (PURPLE, "D"))


@dataclass(frozen=True)
class Prediction:
    """One predictor of the merged-vs-ensemble gap, a panel of `predicted_gap`.

    `predicted` is [merge]; `correlation` its rank correlation with the measured gap
    and the ends of that number's interval. `in_gap_units` says whether predicted and
    measured gap can be compared in size, and so whether the identity is drawn.
    """

    title: str
    predicted: Array
    correlation: tuple[float, float, float]
    in_gap_units: bool


@dataclass(frozen=True)
class Dots:
    """One series of `merging_methods`: a value with its standard error at each row.

    `rows` [m] names the row of each of `values` [m] and `stderr` [m]; a row may hold
    several values of one series, such as repeated draws, or none.
    """

    label: str
    rows: Sequence[str]
    values: Array
    stderr: Array


@styled
def node_map(values: Array, *, layers: Sequence[str], group_size: int) -> Figure:
    """Map mean node M-Loss [layer, group] of groups of consecutive nodes (Figure 3).

    Layers run upwards from the input, as in the paper.
    """
    fig = Figure(figsize=(COLUMN_WIDTH, 2.0), layout="constrained")
    ax = fig.subplots()
    edges = [np.arange(count + 1) + 0.5 for count in values.shape]  # count from 1
    mesh = ax.pcolormesh(
        edges[1], edges[0], values, cmap=SEQUENTIAL, vmin=0, antialiased=False
    )
    ax.set_xlabel(f"node group ({group_size} nodes each)")
    ax.set_ylabel("layer")
    ax.set_yticks(np.arange(len(layers)) + 1, layers)
    ax.tick_params(axis="y", length=0)
    ax.spines[:].set_visible(False)
    fig.colorbar(mesh, ax=ax, label="mean node M-Loss")
    return fig


@styled
def predicted_gap(
    measured: Array, predictions: Sequence[Prediction], *, kinds: Sequence[str]
) -> Figure:
    """Scatter the measured gap [merge] over each prediction of it, on log scales.

    `kinds` [merge] names the kind of each merge, told apart by colour. Each title
    ends in the rank correlation and its interval.
    """
    columns = min(PANELS_A_ROW, len(predictions))
    rows = -(-len(predictions) // columns)
    size = (PAGE_WIDTH * columns / PANELS_A_ROW, 0.3 + 2.1 * rows)
    fig = Figure(figsize=size, layout="constrained")
    axes = fig.subplots(rows, columns, sharey=True, squeeze=False)
    for ax in axes.flat[len(predictions) :]:
        ax.remove()
    for ax, prediction in zip(axes.flat, predictions, strict=False):
        _draw_prediction(ax, measured, prediction, np.asarray(kinds))
    for ax in axes[:, 0]:
        ax.set_ylabel("measured gap")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return fig


def _draw_prediction(
    ax: Axes, measured: Array, prediction: Prediction, kinds: npt.NDArray[np.str_]
) -> None:
    for kind, (color, marker) in zip(np.unique(kinds), cycle(LOOKS), strict=False):
        chosen = kinds == kind
        ax.scatter(
            prediction.predicted[chosen],
            measured[chosen],
            s=7,
            color=color,
            marker=marker,
            alpha=0.6,
            linewidths=0,
            label=kind,
        )
    ax.set(xscale="log", yscale="log", xlabel="predicted")
    _plain_log_ticks(ax.xaxis)
    _plain_log_ticks(ax.yaxis)
    if prediction.in_gap_units:
        ends = [measured.min(), measured.max()]
        ax.plot(ends, ends, color=GREY, linewidth=0.8, label="predicted = measured")
    value, low, high = prediction.correlation
    ax.set_title(f"{prediction.title}\nrank corr. {value:.2f} [{low:.2f}, {high:.2f}]")


def _plain_log_ticks(axis: Axis) -> None:
    """Label 0.1, 0.3, 1, 3 and so on, which suits a range of one to three decades."""
    axis.set_major_locator(LogLocator(subs=(1, 3)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


@styled
def merging_methods(
    rows: Sequence[str], *, accuracy: Sequence[Dots], gap: Sequence[Dots]
) -> Figure:
    """Dot plot of test accuracy and of the gap to the ensemble, a row a method.

    Accuracies are fractions; the first row is at the top. Bars are two standard
    errors either way. The panels answer different questions: how good the merge is,
    and how close to the ensemble. A series has its look by its label's place in
    `accuracy`, which must hold every label of `gap`.
    """
    fig = Figure(figsize=(PAGE_WIDTH, 0.9 + 0.19 * len(rows)), layout="constrained")
    left, right = fig.subplots(1, 2, sharey=True)
    left.set_yticks(range(len(rows)), rows)
    left.set(ylim=(len(rows) - 0.5, -0.5), xlabel="mean test accuracy (%)")
    right.set_xlabel("output gap to the ensemble")
    looks = dict(zip([dots.label for dots in accuracy], cycle(LOOKS), strict=False))
    _draw_series(left, rows, accuracy, looks=looks, unit=100)
    _draw_series(right, rows, gap, looks=looks)
    for ax in (left, right):
        ax.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.5)
        ax.tick_params(axis="y", length=0)
    handles, labels = left.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return fig


def _draw_series(
    ax: Axes,
    rows: Sequence[str],
    series: Sequence[Dots],
    *,
    looks: Mapping[str, tuple[str, str]],
    unit: float = 1,
) -> None:
    """Draw each series, a little below those before it wherever they share a row."""
    for place, dots in enumerate(series):
        color, marker = looks[dots.label]
        above = [sum(row in s.rows for s in series[:place]) for row in dots.rows]
        heights = [rows.index(row) for row in dots.rows]
        ax.errorbar(
            unit * dots.values,
            np.array(heights) + ROW_OFFSET * np.array(above),
            xerr=2 * unit * dots.stderr,
            fmt=marker,
            color=color,
            elinewidth=0.8,
            label=dots.label,
        )

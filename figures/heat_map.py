"""Node M-Loss by layer and group of nodes, for layers of any widths."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from figures.style import PAGE_WIDTH, SEQUENTIAL, styled

Array: TypeAlias = npt.NDArray[np.float64]

ROW_HEIGHT = 0.16  # inches, down to which a label still fits
MOST_HEIGHT = 5.5
MOST_LABELS = 40


@styled
def heat_map(
    rows: Sequence[Array], *, layers: Sequence[str], columns: str, label: str
) -> Figure:
    """Map `rows`, one array [group] a layer in forward order, as in Figure 3.

    Layers run upwards from the input, as in the paper; a narrow layer ends where its
    groups do. Colour follows the square root, so that small values are told apart
    beside large ones. `columns` and `label` say what a column and a value are.
    """
    values = _rectangle(rows)
    height = min(0.75 + ROW_HEIGHT * max(len(rows), 4), MOST_HEIGHT)
    fig = Figure(figsize=(PAGE_WIDTH, height), layout="constrained")
    ax = fig.subplots()
    across, up = (np.arange(size + 1) + 0.5 for size in values.shape[::-1])
    highest = float(values.max()) or 1.0
    mesh = ax.pcolormesh(
        across,
        up,
        values,
        cmap=SEQUENTIAL,
        norm=PowerNorm(0.5, vmin=0, vmax=highest),
        antialiased=False,
    )
    step = -(-len(layers) // MOST_LABELS)
    ax.set_yticks(np.arange(1, len(layers) + 1, step), layers[::step])
    ax.set(xlabel=columns, ylabel="layer")
    ax.tick_params(axis="y", length=0)
    ax.spines[:].set_visible(False)
    scale = ScalarFormatter()
    scale.set_powerlimits((-2, 3))
    fig.colorbar(
        mesh, ax=ax, label=label, format=scale, aspect=max(12, len(rows)), pad=0.015
    )
    return fig


def _rectangle(
    rows: Sequence[Array],
) -> "np.ma.MaskedArray[tuple[int, int], np.dtype[np.float64]]":
    """The rows with what lies beyond a narrow layer's end masked."""
    widths = np.array([len(row) for row in rows])
    there = np.arange(widths.max()) < widths[:, None]
    values = np.zeros(there.shape)
    values[there] = np.concatenate(rows)
    return np.ma.masked_array(values, mask=~there)

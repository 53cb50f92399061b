"""Where an activation bends, found by evaluating it and nothing else."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from simulate.activations import Array
from simulate.backends import Backend, Block

LARGEST = 1 / 64  # of all bending: the most that a panel may hold if it can be halved
FINEST = 1 / 8  # of the errors' size: the narrowest panel
ROUNDS = 80  # of halving; a range of 1e16 widths takes 60
ROUNDING = 2.0**-48  # of f, in a second difference of its values
NEGLIGIBLE = 1e-12  # of all bending
STEPS = np.arange(-1, 6)  # a panel is searched at its quarters and one step beyond
TENTS = np.array([0.5, 1.0, 1.0, 1.0, 0.5])[:, None]


@dataclass(frozen=True, eq=False)
class Bending:
    """A density, constant in each of the panels between `edges` [p + 1].

    `cumulative` [p + 1] rises from 0 to 1: the share of all bending below each edge.
    """

    edges: Array
    cumulative: Array

    @classmethod
    def of(cls, edges: Array, mass: Array) -> "Bending | None":
        """Spread masses [p] evenly over their panels; None if there are none."""
        if not mass.any():
            return None
        mass = np.where(mass > NEGLIGIBLE * mass.sum(), mass, 0.0)
        # Neighbours without mass are one panel.
        edge = np.concatenate([[True], (mass[1:] > 0) | (mass[:-1] > 0), [True]])
        cumulative = np.concatenate([[0.0], np.cumsum(mass)])[edge]
        return cls(edges[edge], cumulative / cumulative[-1])

    def below(self, y: Block, ops: Backend) -> Block:
        """The share of the bending below y."""
        return self._line(y, self.edges, self.cumulative, ops)

    def quantile(self, t: Block, ops: Backend) -> Block:
        """The y below which a share t of the bending lies."""
        return self._line(t, self.cumulative, self.edges, ops)

    @staticmethod
    def _line(at: Block, x: Array, y: Array, ops: Backend) -> Block:
        """Linear interpolation, constant beyond the ends."""
        rise, run = np.diff(y), np.diff(x)
        slope = np.divide(rise, run, out=np.zeros_like(rise), where=run > 0)
        xs, ys, slopes = map(ops.asarray, (x, y, slope))
        at = ops.xp.clip(at, x[0], x[-1])
        i = ops.xp.searchsorted(xs, at, side="right") - 1
        i = ops.xp.clip(i, 0, len(slope) - 1)
        return ys[i] + (at - xs[i]) * slopes[i]


def bending(
    f: Callable[[Array], Array],
    likely: Callable[[Array], Array],
    *,
    low: float,
    high: float,
    scale: float,
) -> Bending | None:
    """How much f' changes on [low, high], times a density; None if f is a line there.

    Panels are halved where they hold much, down to a fraction of `scale`, the size of
    the errors. Any kink in a panel shows in the second differences of f over it. What
    rounding explains counts as none.
    """

    def searched(left: Array, right: Array) -> Array:
        return change_of_slope(f, left, right) * likely((left + right) / 2)

    edges = _first_edges(low, high, scale)
    left, right = edges[:-1], edges[1:]
    mass = searched(left, right)
    for _ in range(ROUNDS):
        large = (mass > LARGEST * mass.sum()) & (right - left > FINEST * scale)
        if not large.any():
            break
        middle = (left[large] + right[large]) / 2
        new_left = np.concatenate([left[large], middle])
        new_right = np.concatenate([middle, right[large]])
        left = np.concatenate([left[~large], new_left])
        right = np.concatenate([right[~large], new_right])
        mass = np.concatenate([mass[~large], searched(new_left, new_right)])
    order = np.argsort(left)
    return Bending.of(np.append(left[order], high), mass[order])


def change_of_slope(f: Callable[[Array], Array], left: Array, right: Array) -> Array:
    """Total variation of f' over each panel [p], from second differences of f."""
    step = (right - left) / 4
    y = f(left + step * STEPS[:, None])
    second = np.abs(y[:-2] - 2 * y[1:-1] + y[2:])
    second[second <= ROUNDING * np.abs(y).max(axis=0)] = 0.0
    return np.asarray((TENTS * second).sum(axis=0) / step)


def _first_edges(low: float, high: float, scale: float) -> Array:
    """Even panels, and panels that shrink towards 0, where activations bend."""
    reach = max(abs(low), abs(high))
    halvings = max(0, int(np.log2(reach / scale)))
    near = reach * 2.0 ** -np.arange(halvings + 1)
    edges = np.concatenate([np.linspace(low, high, 33), near, -near, [0.0]])
    return np.unique(edges[(edges >= low) & (edges <= high)])

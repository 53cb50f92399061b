"""Many one-dimensional integrals at once, each refined where it needs it."""

from collections.abc import Callable

import numpy as np
from numpy.polynomial.legendre import Legendre
from numpy.typing import NDArray

from theory.law import Array

Rows = NDArray[np.intp]
Integrand = Callable[[Rows, Array], Array]

_DEEPEST = 48  # halvings, past which a panel's difference stands as its error


def _lobatto(count: int) -> tuple[Array, Array]:
    """Nodes and weights on (-1, 1) of Lobatto's rule.

    It has nodes at the ends, so that a kink close to an end is seen, and they are
    moved in by 1e-13, so that a jump at an end is not.
    """
    legendre = Legendre.basis(count - 1)
    nodes = np.array([-1.0, *legendre.deriv().roots(), 1.0])
    weights = 2 / (count * (count - 1) * legendre(nodes) ** 2)
    return nodes * (1 - 1e-13), weights


_NODES, _WEIGHTS = _lobatto(12)


def integrate_rows(
    integrand: Integrand, edges: Array, *, tolerance: float
) -> tuple[Array, Array]:
    """Integrals [row] of a function >= 0 over panels [row, edge], and their errors.

    `integrand` maps row numbers [panel] and points [panel, node] to [panel, node]. A
    panel's error is the difference between Lobatto's rule on it and on its halves; it
    is halved again until that is below `tolerance` of its row's integral. Edges need
    no order.
    """
    edges = np.sort(edges, axis=1)
    row, panel = np.nonzero(np.diff(edges) > 0)
    start, stop = edges[row, panel], edges[row, panel + 1]
    whole = _rule(integrand, row, start, stop)
    value, error = np.zeros(len(edges)), np.zeros(len(edges))
    for depth in range(_DEEPEST + 1):
        middle = (start + stop) / 2
        left = _rule(integrand, row, start, middle)
        right = _rule(integrand, row, middle, stop)
        halves, apart = left + right, np.abs(left + right - whole)
        total = value + np.bincount(row, halves, len(value))
        open_ = apart > tolerance * total[row]
        if depth == _DEEPEST:
            open_[:] = False
        value += np.bincount(row[~open_], halves[~open_], len(value))
        error += np.bincount(row[~open_], apart[~open_], len(value))
        if not open_.any():
            break
        start, middle, stop = start[open_], middle[open_], stop[open_]
        row = np.concatenate([row[open_], row[open_]])
        start, stop = np.concatenate([start, middle]), np.concatenate([middle, stop])
        whole = np.concatenate([left[open_], right[open_]])
    return value, error


def _rule(integrand: Integrand, row: Rows, start: Array, stop: Array) -> Array:
    half = (stop - start) / 2
    points = ((start + stop) / 2)[:, None] + half[:, None] * _NODES
    integral: Array = half * (integrand(row, points) @ _WEIGHTS)
    return integral

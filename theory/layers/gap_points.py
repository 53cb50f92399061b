r"""The joint law of a node's M-Loss D and its merged pre-activation m, as points.

Every expectation of a layer or of a normalised form is a mean E[G(D, m)] of some G
that vanishes with D. Given the departures d of the sources, m has a known density, so
that mean is a one-dimensional integral over the places where the gap
S(m) = sum_i w_i f(m + d_i) - f(m) is not zero. It is taken in panels that end where
f, S or the density bend, and at the roots of S. docs/layer.md, section 1.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from theory.activations import Activation, Array
from theory.layers.departures import Departures
from theory.layers.step_panels import NODES, step_rule
from theory.many import departure_gap

_CUT = 8.5  # standard deviations of the density of m
_BENDS = np.array([-8.5, -4.0, -1.5, 0.0, 1.5, 4.0, 8.5])
_PIECES = 30  # of the reach of f, as it is seen from each argument
_BLOCK = 2**17  # nodes in memory at a time
_HALVINGS = 50
_EPS = float(np.finfo(float).eps)


@dataclass(frozen=True)
class GapPoints:
    """Values of D and m [point] with a measure: E[G(D, m)] = measure @ G(gap, merged).

    For every G that vanishes with D. The measure is >= 0 and not a probability: most
    of what has no gap is left out.
    """

    gap: Array
    merged: Array
    measure: Array


def joined(parts: Iterable[GapPoints]) -> GapPoints:
    """All points of several blocks."""
    none, parts = np.empty(0), list(parts)
    return GapPoints(
        np.concatenate([none, *(part.gap for part in parts)]),
        np.concatenate([none, *(part.merged for part in parts)]),
        np.concatenate([none, *(part.measure for part in parts)]),
    )


def gap_points(
    f: Activation,
    k: float,
    weights: Array,
    departures: Departures,
    *,
    marks: Sequence[float] = (),
) -> Iterator[GapPoints]:
    """The points for rows of departures, in blocks.

    `marks` are places in m where the caller's G bends.
    """
    seen = len(_bends(f)) * (len(weights) + 1)
    panels = seen + 2 * len(_BENDS) + len(marks) + _turns(f)
    block = max(_BLOCK // (panels * NODES), 1)
    for start in range(0, len(departures.measure), block):
        rows = departures.rows(slice(start, start + block))
        yield _points(f, k, weights, rows, np.array(marks))


def _points(
    f: Activation, k: float, weights: Array, rows: Departures, marks: Array
) -> GapPoints:
    edges = _edges(f, k, rows, marks)
    if not f.bends_one_way():
        edges = np.concatenate([edges, _roots(f, weights, edges, rows.values)], axis=1)
    m, measure = step_rule(edges)
    measure = measure * _density(m, k, rows) * rows.measure[:, None]
    gap = np.abs(_gap(f, weights, m, rows.values))
    kept = gap * measure > 0
    return GapPoints(gap[kept], m[kept], measure[kept])


def _edges(f: Activation, k: float, rows: Departures, marks: Array) -> Array:
    """Panel edges [row, edge], within where S and the density are not zero."""
    low, high = f.reach
    arms = np.pad(rows.values, ((0, 0), (1, 0)))  # of m itself and of the sources
    ends = rows.drift[:, None] + np.array([-k, k])
    first = np.maximum(low - arms.max(axis=1), ends[:, 0] - _CUT * rows.spread)
    last = np.minimum(high - arms.min(axis=1), ends[:, 1] + _CUT * rows.spread)
    last = np.maximum(first, last)[:, None]
    bends = _bends(f)
    count = len(arms)
    seen = (bends[:, None] - arms[:, None, :]).reshape(count, -1)
    fading = (ends[:, :, None] + rows.spread * _BENDS).reshape(count, -1)
    fixed = np.broadcast_to(marks, (count, len(marks)))
    edges = np.concatenate([seen, fading, fixed, first[:, None], last], axis=1)
    return np.sort(np.clip(edges, first[:, None], last), axis=1)


def _bends(f: Activation) -> Array:
    """Where panels end that resolve f: in its reach, and at its own marks."""
    return np.unique([*np.linspace(*f.reach, _PIECES + 1), *f.kinks, *f.inflections])


def _density(m: Array, k: float, rows: Departures) -> Array:
    """The density of m given the departures: x widened by the merged error."""
    above, below = m - (rows.drift[:, None] - k), m - (rows.drift[:, None] + k)
    if rows.spread == 0:
        return ((above > 0) & (below < 0)) / (2 * k)
    chance: Array = ndtr(above / rows.spread) - ndtr(below / rows.spread)
    return chance / (2 * k)


def _gap(f: Activation, weights: Array, m: Array, departures: Array) -> Array:
    """S at m [row, node], for departures [row, source]."""
    each = np.repeat(departures, m.shape[1], axis=0)
    return departure_gap(f, m.ravel(), each, weights).reshape(m.shape)


def _turns(f: Activation) -> int:
    """How often S may change sign: as often as f' turns, and two more have room."""
    return len(f.inflections) + len(f.kinks) + 2


def _roots(f: Activation, weights: Array, edges: Array, departures: Array) -> Array:
    """Where S changes sign in m, for each row; an edge again where it does not."""
    m, _ = step_rule(edges)
    value = _gap(f, weights, m, departures)
    # The rounding of a difference, which is all there is where f is straight.
    size = np.abs(f(m)) + np.abs(departures).max(axis=1)[:, None]
    sign = np.where(np.abs(value) > 8 * _EPS * size, np.sign(value), 0)
    at = np.maximum.accumulate(np.where(sign != 0, np.arange(m.shape[1]), 0), axis=1)
    carried = np.take_along_axis(sign, at, axis=1)
    row, column = np.nonzero(carried[:, 1:] * carried[:, :-1] < 0)
    roots = np.repeat(edges[:, :1], _turns(f), axis=1)
    left, right = m[row, at[row, column]], m[row, column + 1]
    found = _bisected(f, weights, left, right, departures[row])
    order = np.arange(len(row)) - np.searchsorted(row, row)
    kept = order < roots.shape[1]
    roots[row[kept], order[kept]] = found[kept]
    return roots


def _bisected(
    f: Activation, weights: Array, left: Array, right: Array, departures: Array
) -> Array:
    """A root of S between left and right [root], where its signs differ."""
    start = np.sign(departure_gap(f, left, departures, weights))
    for _ in range(_HALVINGS):
        middle = (left + right) / 2
        same = np.sign(departure_gap(f, middle, departures, weights)) == start
        left, right = np.where(same, middle, left), np.where(same, right, middle)
    return (left + right) / 2

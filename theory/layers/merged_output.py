r"""The size of a merged output |f(m)|: its zeros, and expectations over m.

m is x ~ U(-k, k) plus the merged error N(0, sigma^2 w'Cw), for any number of sources.
"""

from math import ceil, log

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

from theory.activations import Activation, Array
from theory.layers.node import Node
from theory.panels import panel_rule

_CUT = 8.5  # standard deviations of the merged error
_BENDS = np.array([-8.5, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 8.5])
_LOOK = 257  # points over the reach of f, looked at for a change of its sign
_GROWTH = 2.0  # of the distance from a zero, from one mark to the next
_PIECES = 24  # of the reach of f


def output_zeros(f: Activation) -> list[float]:
    """Where f is zero, at an end of a stretch of zeros and where it changes sign."""
    low, high = f.reach
    ends = [low, high]
    for side, (end, slope) in enumerate(zip(f.reach, f.slopes, strict=True)):
        # Past its reach f is a straight line.
        if slope != 0:
            across = end - float(f(np.array(end))) / slope
            ends[side] = min(across, low) if side == 0 else max(across, high)
    x = np.unique([*np.linspace(low, high, _LOOK), *f.kinks, *ends])
    y = f(x)
    dead = np.pad(y == 0, 1)
    found = x[dead[1:-1] & ~(dead[:-2] & dead[2:])].tolist()
    for i in np.nonzero(y[1:] * y[:-1] < 0)[0]:
        found.append(brentq(lambda t: float(f(np.array(t))), x[i], x[i + 1]))
    return sorted(found)


def marks_about_zeros(node: Node, *, floor: float) -> list[float]:
    """Places in m for panels that resolve 1 / (|f(m)| + floor), `floor` > 0.

    Geometric about each zero of f, from where |f| is a part of the floor.
    """
    f, unit = node.f, node.unit
    low, high = f.reach
    widest = np.sqrt(max(node.law.merged_variance, *node.law.source_variances))
    width = (high - low + node.k + 2 * _CUT * node.sigma * widest) * unit
    marks: list[float] = []
    for zero in output_zeros(f):
        sides = np.nextafter(zero, [-np.inf, np.inf])
        steepest = float(np.abs(f.derivative(sides)).max()) or 1.0
        nearest = min(floor / steepest, width) / 2
        steps = ceil(log(2 * (width + abs(zero)) / nearest) / log(_GROWTH))
        distance = nearest * _GROWTH ** np.arange(steps + 1)
        marks += [zero, *(zero - distance), *(zero + distance)]
    return marks


def merged_points(node: Node, marks: list[float]) -> tuple[Array, Array]:
    """|f(m)| and a probability [point], for functions that bend at `marks`."""
    spread = node.sigma * float(np.sqrt(node.law.merged_variance))
    top = node.k + _CUT * spread
    fading = [end + spread * _BENDS for end in (-node.k, node.k)]
    own = [np.linspace(*node.f.reach, _PIECES + 1), np.array(node.f.kinks)]
    own += [np.array(node.f.inflections), np.array(marks) / node.unit]
    edges = np.concatenate([[-top, top], *fading, *own])
    m, measure = panel_rule(np.clip(edges, -top, top))
    if spread > 0:
        chance = ndtr((m + node.k) / spread) - ndtr((m - node.k) / spread)
    else:
        chance = np.ones_like(m)
    return node.output(m * node.unit), measure * chance / (2 * node.k)


def output_square(node: Node) -> float:
    """E[f(m)^2]."""
    size, chance = merged_points(node, [])
    return float(size**2 @ chance)

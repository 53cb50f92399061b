"""How a gate moves between the sources, without the cancellation of small errors."""

from itertools import pairwise

import numpy as np
from scipy.special import roots_legendre

from theory.activations import Activation, Array

_NODES, _WEIGHTS = roots_legendre(6)
_SMALL = 0.1  # of the scale of f: below it f is a tangent and a mean of f''


def gate_moves(
    f: Activation, m: Array, departure: Array, weights: Array
) -> tuple[Array, Array]:
    """The rises f(m + d_i) - f(m) [row, node, source], and their weighted sum S.

    For m [row, node] and departures d [row, source], whose weighted mean is zero. S is
    0 to the last bit where the sources all see one straight line.
    """
    low, high = f.reach
    m, d = m[..., None], departure[:, None, :]
    below = (m + d).max(axis=2) <= low
    straight = below | ((m + d).min(axis=2) >= high)
    size = np.broadcast_to(np.abs(d).max(axis=2), straight.shape)
    small = ~straight & (size < _SMALL * max((high - low) / 40, 0.1))
    wide = ~straight & ~small
    m, d = np.broadcast_arrays(m, d)
    gap = np.zeros(straight.shape)
    rises = d * np.where(below, *f.slopes)[..., None]
    rises[wide] = f(m[wide] + d[wide]) - f(m[wide])
    gap[wide] = rises[wide] @ weights
    bent = _off_tangent(f, m[small], d[small])
    rises[small] = d[small] * f.derivative(m[small]) + bent
    gap[small] = bent @ weights
    return rises, gap


def _off_tangent(f: Activation, m: Array, d: Array) -> Array:
    """f(m + d) - f(m) - d f'(m) by f'' and the jumps of f' between m and m + d.

    d^2 int_0^1 (1 - s) f''(m + s d) ds, split at the kinks, and jump |m + d - kink|
    for each kink that is passed.
    """
    total = np.zeros_like(d)
    edges = [np.zeros_like(d), np.ones_like(d)]
    for kink, jump in zip(f.kinks, f.jumps, strict=True):
        at = np.divide(kink - m, d, out=np.ones_like(d), where=d != 0)
        total += jump * np.where((at > 0) & (at < 1), np.abs(m + d - kink), 0)
        edges.append(np.clip(at, 0, 1))
    for start, stop in pairwise(np.sort(edges, axis=0)):
        for node, weight in zip(_NODES, _WEIGHTS, strict=True):
            s = start + (stop - start) * (1 + node) / 2
            share = weight * (stop - start) / 2 * (1 - s)
            total += d**2 * share * f.curvature(m + s * d)
    return total

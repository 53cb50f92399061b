"""E|S| by 20-digit quadrature of its definition, sharing no formula with theory.

The law of (m, u) is that of x + (e_1 + e_2)/2 and (e_1 - e_2)/2; the integral over m
is split at the root of S, found by bisection, and S is the difference it is.
"""

from itertools import pairwise

import mpmath as mp
import numpy as np

FUNCTIONS = {
    "gelu": lambda x: x * mp.ncdf(x),
    "silu": lambda x: x / (1 + mp.exp(-x)),
    "quick_gelu": lambda x: x / (1 + mp.exp(-mp.mpf("1.702") * x)),
}


def reference_mloss(name, k, sigma):
    """E[D] and how far two orders of the quadrature are apart."""
    with mp.workdps(20):
        coarse, fine = (_quadrature(name, k, sigma, order) for order in (11, 14))
    return float(fine), abs(float(fine - coarse))


def _quadrature(name, k, sigma, order):
    f = FUNCTIONS[name]
    k, s = mp.mpf(k), mp.mpf(sigma) / mp.sqrt(2)
    total = mp.mpf(0)
    for u, weight in _nodes([s * z for z in (0, 1.5, 3, 5, 8.5)], order):

        def gap(m, u=u):
            return (f(m + u) + f(m - u)) / 2 - f(m)

        root = mp.findroot(gap, (0, u + 3), solver="anderson", tol=1e-30)
        cuts = [0, root / 2, *(root + y for y in (0, 1, 3, 6, 11, 20, 36))]
        mean = mp.mpf(0)
        for m, m_weight in _nodes(cuts, order):
            chance = mp.ncdf((m + k) / s) - mp.ncdf((m - k) / s)
            mean += m_weight * abs(gap(m)) * chance
        total += weight * mean * mp.npdf(u / s) / s
    return 4 * total / (2 * k)


def _nodes(cuts, order):
    points, weights = np.polynomial.legendre.leggauss(order)
    for low, high in pairwise(cuts):
        half = (high - low) / 2
        for point, weight in zip(points, weights, strict=True):
            yield low + half * (1 + mp.mpf(point)), half * mp.mpf(weight)

"""E[D] of the paper's Section 4 from its definition, in many-digit arithmetic.

A double Gauss-Legendre sum over m = (a + b)/2 and u = (a - b)/2 of the definition
|f(m) - (f(m + u) + f(m - u))/2|, with no formula of the theory in it. Both variables
may be taken positive: |S| is even in u, and in m as each f is linear plus even.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import mpmath as mp
from scipy.special import roots_legendre

# What lies beyond nine standard deviations has 1e-17 of the second moment.
CUT = 9
BENDS = (-CUT, -5, -2.5, 0, 2.5, 5, CUT)
SPREAD = (0, 0.08, 0.3, 1)


@dataclass(frozen=True)
class Definition:
    """An activation, and how far from 0 it is within 1e-18 of its asymptotes."""

    f: Callable[[mp.mpf], mp.mpf]
    reach: int


DEFINITIONS = {
    "relu": Definition(lambda x: max(x, mp.mpf(0)), 0),
    "leaky_relu": Definition(lambda x: x if x > 0 else mp.mpf(0.01) * x, 0),
    "gelu": Definition(lambda x: x * mp.ncdf(x), 10),
    "quick_gelu": Definition(lambda x: x / (1 + mp.exp(-mp.mpf("1.702") * x)), 26),
    "silu": Definition(lambda x: x / (1 + mp.exp(-x)), 44),
}


def from_definition(
    name: str, k: float, sigma: float, *, digits: int = 50, order: int = 14
) -> tuple[float, float]:
    """E[D] and its error: how far the sum with three quarters of the nodes is off."""
    with mp.workdps(digits):
        law = DEFINITIONS[name], mp.mpf(k), mp.mpf(sigma) / mp.sqrt(2)
        fine = _double_sum(*law, order=order)
        coarse = _double_sum(*law, order=3 * order // 4)
        return float(fine), float(abs(fine - coarse))


def _double_sum(f: Definition, k: mp.mpf, s: mp.mpf, *, order: int) -> mp.mpf:
    total = mp.mpf(0)
    cuts = [s * z for z in (0, 1, 2.5, 5, CUT)]
    cuts += [f.reach * z for z in SPREAD]
    for u, weight in _nodes(cuts, order, top=CUT * s):
        total += weight * mp.npdf(u / s) / s * _over_m(f, u, k, s, order=order)
    return 2 * total / k


def _over_m(f: Definition, u: mp.mpf, k: mp.mpf, s: mp.mpf, *, order: int) -> mp.mpf:
    """int_0^inf |S(m, u)| P(|m + s Z| < k) dm."""

    def gap(m: mp.mpf) -> mp.mpf:
        return (f.f(m + u) + f.f(m - u)) / 2 - f.f(m)

    cuts = [mp.mpf(0), u, *(k + s * z for z in BENDS)]
    if f.reach:
        cuts += [mp.findroot(gap, (0, u + 3), solver="anderson", tol=1e-30)]
        arms = [sign * f.reach * z for z in SPREAD for sign in (1, -1)]
        cuts += [centre + arm for centre in (0, u, -u) for arm in arms]
    top = min(u + f.reach, k + CUT * s)
    return mp.fsum(
        weight * abs(gap(m)) * _chance(m, k, s)
        for m, weight in _nodes(cuts, order, top)
    )


def _chance(m: mp.mpf, k: mp.mpf, s: mp.mpf) -> mp.mpf:
    """P(|m + s Z| < k) for m >= 0; 1 to 19 digits well inside."""
    if k - m > CUT * s:
        return mp.mpf(1)
    return mp.ncdf((k - m) / s) - mp.ncdf(-(k + m) / s)


def _nodes(
    cuts: Iterable[mp.mpf], order: int, top: mp.mpf
) -> Iterator[tuple[mp.mpf, mp.mpf]]:
    """Nodes and weights of the panels between the cuts within (0, top)."""
    edges = sorted({min(max(mp.mpf(0), cut), top) for cut in cuts} | {top})
    for low, high in pairwise(edges):
        half = (high - low) / 2
        for point, weight in _rule(order):
            yield low + half * (1 + point), half * weight


@cache
def _rule(order: int) -> list[tuple[float, float]]:
    """In float64, whose rounding is then the floor of the sum's error."""
    points, weights = roots_legendre(order)
    return [(float(p), float(w)) for p, w in zip(points, weights, strict=True)]

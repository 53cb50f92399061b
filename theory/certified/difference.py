r"""The second difference S(m, u) = (f(m+u) + f(m-u))/2 - f(m), sharp or over boxes.

A point of the half plane is given as `offset` = m - u and u: near the root of S the
offset stays small however large u is. S is a mean of f'' under a hat,

    S(m, u) = (u^2 / 2) int_{-1}^{1} (1 - |t|) f''(m + t u) dt,

and its derivative in m is the same with f' and f''' for f and f''.
"""

from collections.abc import Callable

from flint import arb

from theory.certified.gaussian import Ball
from theory.certified.smooth import SmoothActivation

_SLICES = 8


def difference(value: Callable[[Ball], Ball], offset: Ball, u: Ball) -> Ball:
    """(F(m+u) + F(m-u))/2 - F(m), sharp where offset and u are points."""
    return (value(offset + 2 * u) + value(offset)) / 2 - value(offset + u)


def scaled_difference_over(
    f: SmoothActivation, offset: Ball, u: Ball, *, derivative: bool = False
) -> Ball:
    """S / u^2, or its derivative in m, for every point of two wide balls.

    Through the hat where u is small, else as the difference it is.
    """
    if abs(u) < f.reach() * 3 / 5:
        return _hat_mean(f.curvature_slope if derivative else f.curvature, offset, u)
    value = f.slope_excess if derivative else f.excess
    return difference(value, offset, u) / (u * u)


def _hat_mean(curvature: Callable[[Ball], Ball], offset: Ball, u: Ball) -> Ball:
    """Half the mean of f'' under the hat, slice by slice of t."""
    m, total = offset + u, offset * 0
    for i in range(_SLICES):
        t = (arb(i) / _SLICES).union(arb(i + 1) / _SLICES)
        weight = arb(2 * (_SLICES - i) - 1) / (2 * _SLICES**2)
        total += weight * (curvature(m + t * u) + curvature(m - t * u))
    return total / 2

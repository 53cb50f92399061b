r"""GELU's second difference, its right root and its tail integral.

For weights (w_1, w_2) the difference

    S(m, u) = w_1 f(m + w_2 u) + w_2 f(m - w_1 u) - f(m)

is positive between two roots in m and negative beyond them. Past the right one, m*,

    Q(m, u) = int_m^inf -S = w_1 g(m + w_2 u) + w_2 g(m - w_1 u) - g(m)

is elementary. docs/theory.md, section 4.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.optimize import elementwise
from scipy.special import ndtr, roots_jacobi

from theory.signed import phi

Array = NDArray[np.float64]

# For the weight 1 - t on (0, 1); four nodes leave 1e-14 while |u| <= 1/10, and past
# that the difference itself keeps 13 digits.
_HAT_NODES, _HAT_WEIGHTS = roots_jacobi(4, 1, 0)
_SMALL = 0.1
_STRAIGHT = 8.5  # arms this long end at the root, to 1e-14
_STEP = 0.02  # of asinh |u|, between the roots that the curve goes through


@dataclass(frozen=True)
class RightRoot:
    """m*(u) for u of one sign: its nearer arm and, up to |u| = end, what exceeds it."""

    arm: float
    end: float
    excess: CubicSpline

    def __call__(self, u: Array) -> Array:
        """m*(u), to 1e-7: |S| vanishes there, so that this weighs 1e-14 in E|S|."""
        size = np.abs(u)
        root: Array = self.arm * size + self.excess(np.minimum(size, self.end))
        return root


def right_root(weights: Array, *, sign: int, top: float) -> RightRoot:
    """The curve m*(u) for u of this sign and |u| <= top."""
    arm = float(weights[0] if sign > 0 else weights[1])
    end = np.arcsinh(min(max(top, 1.0), _STRAIGHT / arm))
    size = np.sinh(np.linspace(0, end, int(end / _STEP) + 4))
    root = _bracketed_root(sign * size, weights, above=np.sqrt(2) + arm * size)
    return RightRoot(arm, float(size[-1]), CubicSpline(size, root - arm * size))


def _bracketed_root(u: Array, weights: Array, *, above: Array) -> Array:
    """m*(u) below `above`, where every argument of S lies beyond sqrt 2.

    S < 0 there, as f'' is; S > 0 at m = 0, as GELU is x/2 plus an even function that
    is least at 0.
    """

    def gap(m: Array, u: Array) -> Array:
        return scaled_difference(m, u, weights)

    found = elementwise.find_root(
        gap,
        (np.zeros_like(u), above),
        args=(u,),
        tolerances={"xatol": 1e-8, "xrtol": 1e-8},
    )
    assert found.success.all(), "the bracket holds exactly one root"
    root: Array = found.x
    return root


def scaled_difference(m: Array, u: Array, weights: Array) -> Array:
    """S(m, u) / (w_1 w_2 u^2), which has the limit f''(m) / 2 at u = 0."""
    return _scaled(_shifted_gelu, _curvature, m, u, weights)


def tail_integral(m: Array, u: Array, weights: Array) -> Array:
    """Q(m, u) for m [..., pair] and u [pair]."""
    scale: Array = weights[0] * weights[1] * u**2
    return scale * _scaled(_twice_integrated, _slope, m, u, weights)


def _scaled(
    value: Callable[[Array], Array],
    curvature: Callable[[Array], Array],
    m: Array,
    u: Array,
    weights: Array,
) -> Array:
    """(w_1 F(m + w_2 u) + w_2 F(m - w_1 u) - F(m)) / (w_1 w_2 u^2), curvature = F''.

    Where u is small the difference cancels; there it is taken as the mean of F''
    under a hat, int_0^1 (1 - t) (w_2 F''(m + t w_2 u) + w_1 F''(m - t w_1 u)) dt.
    """
    w1, w2 = weights
    small = np.abs(u) <= _SMALL
    result = np.empty_like(m)
    large_m, large_u = m[..., ~small], u[~small]
    result[..., ~small] = (
        w1 * value(large_m + w2 * large_u)
        + w2 * value(large_m - w1 * large_u)
        - value(large_m)
    ) / (w1 * w2 * large_u**2)
    small_m, small_u = m[..., small], u[small]
    mean = np.zeros_like(small_m)
    for node, weight in zip(_HAT_NODES, _HAT_WEIGHTS, strict=True):
        t = (1 + node) / 2
        mean += (weight / 4) * (
            w2 * curvature(small_m + t * w2 * small_u)
            + w1 * curvature(small_m - t * w1 * small_u)
        )
    result[..., small] = mean
    return result


# GELU less x, which has the same second differences and vanishes at infinity; its
# first two derivatives; and the integral of its negative from x to infinity.
def _shifted_gelu(x: Array) -> Array:
    return -x * ndtr(-x)


def _slope(x: Array) -> Array:
    return x * phi(x) - ndtr(-x)


def _curvature(x: Array) -> Array:
    return phi(x) * (2 - x**2)


def _twice_integrated(x: Array) -> Array:
    return ((1 - x**2) * ndtr(-x) + x * phi(x)) / 2

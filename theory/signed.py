r"""E[sum_i w_i f(h_i) - f(m)], the Jensen gap without the absolute value.

By the heat equation, d/dv E f(x + sqrt(v) Z) = E f''(x + sqrt(v) Z) / 2. With x
uniform on (-k, k) the signed gap is therefore

    1/(4k) sum_i w_i int_{v_m}^{v_i} K(v) dv,
    K(v) = E f'(k + sqrt(v) Z) - E f'(-k + sqrt(v) Z),

v_i being the variance of source i and v_m that of the merged node. For ReLU
K(v) = erf(k / sqrt(2v)), and E[D] = V / (4k) once K is 1. GELU is ReLU smoothed by
a unit Gaussian, so its K is a function of T = 1 + v. docs/theory.md, section 2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import pi, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, erfc, roots_legendre

from theory.law import ErrorLaw

Array = NDArray[np.float64]

_SQRT2 = sqrt(2)
# Variances within a quarter of each other count as close. On such a step K' is
# analytic three step lengths beyond either end, so 14 nodes leave less than eps.
_CLOSE = 0.25
_NODES, _NODE_WEIGHTS = roots_legendre(14)


@dataclass(frozen=True)
class HeatKernel:
    """K as a function of (k, T), T = smoothing + v; its primitive and derivative in T.

    The primitive vanishes at T = 0.
    """

    smoothing: float
    value: Callable[[Array, Array], Array]
    primitive: Callable[[Array, Array], Array]
    derivative: Callable[[Array, Array], Array]


def signed_gap(k: Array, sigma: Array, law: ErrorLaw, kernel: HeatKernel) -> Array:
    """1/(4k) sum_i w_i int_{v_m}^{v_i} K(v) dv; k and sigma of any one shape."""
    return kernel_integral(k, sigma, law, kernel) / (4 * k)


def kernel_integral(k: Array, sigma: Array, law: ErrorLaw, kernel: HeatKernel) -> Array:
    """sum_i w_i int_{v_m}^{v_i} K(v) dv, with v = sigma^2 Var e.

    k and sigma of any one shape. Where v_i is close to v_m a difference of
    primitives would cancel. Those sources enter as V K(v_m), less the part of V
    that the distant sources own, plus a second-order rest.
    """
    unit = sigma**2
    merged = kernel.smoothing + law.merged_variance * unit
    near = law.jensen_variance * unit
    rest = np.zeros_like(unit)
    any_close = np.zeros(unit.shape, dtype=bool)
    for variance, weight in _grouped(law):
        step = (variance - law.merged_variance) * unit
        close = np.abs(step) <= _CLOSE * merged
        any_close |= close
        near = near - np.where(close, 0, weight * step)
        rest += weight * np.where(
            close,
            _curved_rest(k, merged, np.where(close, step, 0), kernel),
            kernel.primitive(k, merged + step) - kernel.primitive(k, merged),
        )
    return np.where(any_close, near * kernel.value(k, merged), 0) + rest


def _grouped(law: ErrorLaw) -> list[tuple[float, float]]:
    """The distinct source variances, each with the summed weight of its sources."""
    variances, group = np.unique(law.source_variances, return_inverse=True)
    weights = np.bincount(group, weights=law.weights)
    return list(zip(variances.tolist(), weights.tolist(), strict=True))


def _curved_rest(k: Array, start: Array, step: Array, kernel: HeatKernel) -> Array:
    """The integral of K(T) - K(start) over T from start to start + step.

    It is step^2 int_0^1 (1 - y) K'(start + y step) dy, which does not cancel.
    """
    total = np.zeros_like(start)
    for node, weight in zip(_NODES, _NODE_WEIGHTS, strict=True):
        y = (1 + node) / 2
        total += weight / 2 * (1 - y) * kernel.derivative(k, start + y * step)
    return step**2 * total


def relu_value(k: Array, v: Array) -> Array:
    """erf(k / sqrt(2v)): the chance that |sqrt(v) Z| stays below k."""
    return erf(widths(k, v) / _SQRT2)


def relu_primitive(k: Array, v: Array) -> Array:
    """The integral of erf(k / sqrt(2t)) over t from 0 to v.

    (v + k^2) erf(z / sqrt 2) + 2 k sqrt(v) phi(z) - k^2 at z = k / sqrt(v), which
    cancels for large z; there it is v less the integral of erfc.
    """
    z = widths(k, v)
    chance, density = erf(z / _SQRT2), 2 * z * phi(z)
    tail = (1 + z**2) * erfc(z / _SQRT2) - density
    return v * np.where(z < 1, chance + z**2 * (chance - 1) + density, 1 - tail)


def relu_derivative(k: Array, v: Array) -> Array:
    """-z phi(z) / v at z = k / sqrt(v), and its limit 0 at v = 0."""
    z = widths(k, v)
    slope = -z * phi(z)
    return np.divide(slope, v, out=np.zeros_like(slope), where=v > 0)


def widths(k: Array, v: Array) -> Array:
    """k / sqrt(v), cut at 40, past which a Gaussian tail is zero in float64."""
    far = np.full(np.broadcast_shapes(k.shape, v.shape), 40.0)
    ratio: Array = np.divide(k, np.sqrt(v), out=far, where=v > 0)
    return np.minimum(ratio, 40.0)


def phi(z: Array) -> Array:
    """The standard normal density."""
    return np.exp(-(z**2) / 2) / sqrt(2 * pi)


RELU_KERNEL = HeatKernel(0.0, relu_value, relu_primitive, relu_derivative)

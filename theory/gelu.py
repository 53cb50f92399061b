r"""Expected node M-Loss of GELU for two sources, to about 1e-11 relative.

With u = h_1 - h_2 and m = w_1 h_1 + w_2 h_2, D = |S| for the second difference

    S(m, u) = w_1 f(m + w_2 u) + w_2 f(m - w_1 u) - f(m),

positive between two roots in m and negative beyond them, as f'' is. So
E|S| = E[S] + 2 E[S^-], where E[S] has a closed form (`theory.signed`) and, as S is
even under (m, u) -> (-m, -u), the two negative tails contribute equally. The tail
beyond the right root m*(u) is integrated over m by the antiderivative

    Q(m, u) = int_m^inf -S = w_1 g(m + w_2 u) + w_2 g(m - w_1 u) - g(m),

leaving 2/k E[Q(max(n - k, m*), u) - Q(max(n + k, m*), u)] over the Gaussian pair u
and n = w_1 e_1 + w_2 e_2. Derived in docs/theory.md, section 4.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import elementwise
from scipy.special import ndtr, roots_jacobi, roots_legendre

from theory.law import ErrorLaw
from theory.signed import (
    HeatKernel,
    phi,
    relu_derivative,
    relu_primitive,
    relu_value,
    signed_gap,
)

Array = NDArray[np.float64]

_CUT = 7.5  # standard deviations; what lies beyond has 1e-12 of the second moment
_REACH = 8.0  # -S(m* + y, u) has a Gaussian tail in y, below 1e-14 there
_BLOCK = 256  # points at a time, which keeps the nodes of one block in cache
_U_NODES, _U_WEIGHTS = roots_legendre(14)
_N_NODES, _N_WEIGHTS = roots_legendre(28)
# For the weight 1 - t on (0, 1); four nodes leave 1e-14 while |u| <= 1/10, and past
# that the difference itself keeps 13 digits.
_HAT_NODES, _HAT_WEIGHTS = roots_jacobi(4, 1, 0)
_SMALL = 0.1


def _kernel_value(k: Array, t: Array) -> Array:
    return relu_value(k, t) - 2 * relu_derivative(k, t)


def _kernel_primitive(k: Array, t: Array) -> Array:
    return relu_primitive(k, t) - 2 * relu_value(k, t)


def _kernel_derivative(k: Array, t: Array) -> Array:
    return relu_derivative(k, t) * (1 + 3 / t - (k / t) ** 2)


# x Phi(x) = E relu(x + Z) - phi(x), whence K(T) = K_relu(T) - 2 K_relu'(T).
GELU_KERNEL = HeatKernel(1.0, _kernel_value, _kernel_primitive, _kernel_derivative)


def expected_gelu(k: Array, sigma: Array, law: ErrorLaw) -> Array:
    """E[D] for GELU and two sources; k and sigma of one shape, in GELU's units.

    Good to 1e-10 but where m follows u closely and sigma is several of GELU's own
    widths: `needs_panels` tells, and `theory.pair` serves there.
    """
    assert law.q == 2, "the caller sends two sources of positive weight"
    assert law.jensen_variance > 0, "and errors that are not one and the same"
    flat_k, flat_sigma = k.reshape(-1), sigma.reshape(-1)
    result = signed_gap(flat_k, flat_sigma, law, GELU_KERNEL)
    for start in range(0, flat_k.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        result[block] += 2 * _negative_part(flat_k[block], flat_sigma[block], law)
    return np.asarray(result).reshape(k.shape)


def needs_panels(sigma: Array, law: ErrorLaw) -> NDArray[np.bool_]:
    """Where the integrand bends too sharply in u for the panels used here."""
    pair = law.pair()
    return (pair.deviation * sigma > 3) & (pair.spread < pair.deviation / 4)


def _negative_part(k: Array, sigma: Array, law: ErrorLaw) -> Array:
    """E[S^-] for k and sigma of shape [point]."""
    pair = law.pair()
    symmetric = pair.drift == 0 and law.weights[0] == law.weights[1]
    total = np.zeros_like(k)
    for sign in (1,) if symmetric else (1, -1):
        tail = _Tail(law.weights, sign, pair.drift, k, pair.spread * sigma)
        total += tail.mean(pair.deviation * sigma)
    return (2 if symmetric else 1) * total / k


@dataclass(frozen=True)
class _Tail:
    """The half u > 0 or u < 0 of E[Q(max(n - k, m*), u) - Q(max(n + k, m*), u)]."""

    weights: Array
    sign: int
    drift: float
    k: Array
    spread: Array

    def mean(self, deviation: Array) -> Array:
        """The expectation over u ~ N(0, deviation^2) on this half, [point]."""
        edges = self._edges(deviation)
        half = np.diff(edges)[..., None] / 2
        size = edges[:, :-1, None] + half * (1 + _U_NODES)
        measure = half * _U_WEIGHTS * phi(size / deviation[:, None, None])
        u = self.sign * size.reshape(len(deviation), -1)
        measure = measure.reshape(u.shape) / deviation[:, None]
        root = _right_root(u, self.weights)
        whole = _tail_integral(root, u, self.weights)
        below = self._beyond(u, root, whole, -self.k[:, None])
        above = self._beyond(u, root, whole, self.k[:, None])
        total: Array = ((below - above) * measure).sum(axis=1)
        return total

    def _edges(self, deviation: Array) -> Array:
        """Panels [point, edge] in |u|: geometric between GELU's scale and the law's.

        Where n follows u closely, Q(max(n + k, m*)) bends sharply as m* passes
        n + k; the panels are split there.
        """
        top = _CUT * deviation
        bottom = np.minimum(deviation, 1) / 2
        powers = np.linspace(0, 1, 5)
        edges = [np.zeros_like(top)]
        edges += [bottom * (top / bottom) ** power for power in powers]
        if (self.spread < deviation / 2).any():
            edges += [self._crossing(shift, top) for shift in (-self.k, self.k)]
        return np.sort(np.stack(edges, axis=1), axis=1)

    def _crossing(self, shift: Array, top: Array) -> Array:
        """|u| where the root passes drift * u + shift, or `top` where it does not."""

        def sign_of_gap(size: Array, shift: Array) -> Array:
            u = self.sign * size
            m = self.drift * u + shift
            return _second_difference(_shifted_gelu, _curvature, m, u, self.weights)

        found = elementwise.find_root(
            sign_of_gap, (np.zeros_like(top), top), args=(shift,)
        )
        return np.where(found.success, found.x, top)

    def _beyond(self, u: Array, root: Array, whole: Array, shift: Array) -> Array:
        """E over n given u of Q(max(n + shift, m*), u), for u of shape [point, node].

        n + shift below the root m*, where Q stays `whole`, then above it.
        """
        spread = np.maximum(self.spread, 1e-200)[:, None]
        centre = self.drift * u + shift
        start = (root - centre) / spread
        result = whole * ndtr(start)
        low = np.maximum(start, -_CUT)
        high = np.minimum(start + _REACH / spread, _CUT)
        inside = high > low
        low, half = low[inside], (high - low)[inside] / 2
        u, centre = u[inside], centre[inside]
        spread = np.broadcast_to(spread, inside.shape)[inside]
        part = np.zeros_like(u)
        for node, weight in zip(_N_NODES, _N_WEIGHTS, strict=True):
            z = low + half * (1 + node)
            q = _tail_integral(centre + spread * z, u, self.weights)
            part += weight * half * phi(z) * q
        result[inside] += part
        return result


def _right_root(u: Array, weights: Array) -> Array:
    """m*(u), past which S(., u) is negative.

    S > 0 at m = 0, as GELU is x/2 plus an even function that is least at 0, and
    S < 0 once every argument lies beyond sqrt 2, as f'' is.
    """

    def scaled_difference(m: Array, u: Array) -> Array:
        return _second_difference(_shifted_gelu, _curvature, m, u, weights)

    arm = np.where(u > 0, weights[0], weights[1]) * np.abs(u)
    found = elementwise.find_root(
        scaled_difference,
        (np.zeros_like(u), np.sqrt(2) + arm),
        args=(u,),
        # |S| vanishes at its root, so an error of 1e-6 there weighs 1e-12.
        tolerances={"xatol": 1e-6, "xrtol": 1e-6},
    )
    assert found.success.all(), "the bracket holds exactly one root"
    root: Array = found.x
    return root


def _tail_integral(m: Array, u: Array, weights: Array) -> Array:
    """Q(m, u), the integral of -S(., u) from m to infinity."""
    scale: Array = weights[0] * weights[1] * u**2
    return scale * _second_difference(_twice_integrated, _slope, m, u, weights)


def _second_difference(
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
    large_m, large_u = m[~small], u[~small]
    result[~small] = (
        w1 * value(large_m + w2 * large_u)
        + w2 * value(large_m - w1 * large_u)
        - value(large_m)
    ) / (w1 * w2 * large_u**2)
    small_m, small_u = m[small], u[small]
    mean = np.zeros_like(small_m)
    for node, weight in zip(_HAT_NODES, _HAT_WEIGHTS, strict=True):
        t = (1 + node) / 2
        mean += (weight / 4) * (
            w2 * curvature(small_m + t * w2 * small_u)
            + w1 * curvature(small_m - t * w1 * small_u)
        )
    result[small] = mean
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

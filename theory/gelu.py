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

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import elementwise
from scipy.special import ndtr, roots_legendre

from theory.gelu_difference import (
    RightRoot,
    right_root,
    scaled_difference,
    tail_integral,
)
from theory.law import ErrorLaw, PairLaw
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
_BLOCK = 64  # points at a time, which keeps the nodes of one block in cache
_FIRST, _RATIO = 1.5, 5.1  # where the first panel in |u| ends, how the others grow
# Laws less loose than two independent sources want finer panels, then another way.
_LOOSE, _FINER_RATIO, _CLOSE = 0.49, 1.6, 0.15
_U_NODES, _U_WEIGHTS = roots_legendre(16)
_N_NODES, _N_WEIGHTS = (column[:, None] for column in roots_legendre(30))


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

    Good to 1e-10 unless m follows u closely: `follows_closely` tells, and
    `theory.pair` serves there.
    """
    assert law.q == 2, "the caller sends two sources of positive weight"
    assert law.jensen_variance > 0, "and errors that are not one and the same"
    flat_k, flat_sigma = k.reshape(-1), sigma.reshape(-1)
    result = signed_gap(flat_k, flat_sigma, law, GELU_KERNEL)
    halves = _halves(law, largest=float(flat_sigma.max(initial=0.0)))
    for alike in _blocks(_panels(law.pair(), flat_sigma)):
        both = sum(half.mean(flat_k[alike], flat_sigma[alike]) for half in halves)
        result[alike] += 4 / len(halves) * both / flat_k[alike]
    return np.asarray(result).reshape(k.shape)


def follows_closely(law: ErrorLaw) -> bool:
    """Whether m follows u so closely that the integrand bends too sharply in u."""
    return law.pair().looseness < _CLOSE


def _blocks(panels: NDArray[np.int_]) -> Iterator[NDArray[np.intp]]:
    """The points in blocks that take equally many panels in u."""
    for count in np.unique(panels):
        same = np.flatnonzero(panels == count)
        yield from np.array_split(same, np.ceil(same.size / _BLOCK))


def _panels(pair: PairLaw, sigma: Array) -> NDArray[np.int_]:
    """How many panels follow the first, [point]."""
    deviation = pair.deviation * sigma
    ratio = _RATIO if pair.looseness >= _LOOSE else _FINER_RATIO
    spans = np.log(_CUT * deviation / _first(deviation)) / np.log(ratio)
    panels: NDArray[np.int_] = np.ceil(spans).astype(int)
    return panels


def _first(deviation: Array) -> Array:
    """Where the first panel in |u| ends: on the finer of GELU's scale and the law's."""
    return np.minimum(deviation, 1) * _FIRST


def _halves(law: ErrorLaw, *, largest: float) -> list["_Half"]:
    """The halves u > 0 and u < 0, or one of them where they are alike."""
    pair, weights = law.pair(), law.weights
    top = _CUT * pair.deviation * largest
    signs = (1,) if pair.drift == 0 and weights[0] == weights[1] else (1, -1)
    return [
        _Half(weights, pair, sign, right_root(weights, sign=sign, top=top))
        for sign in signs
    ]


@dataclass(frozen=True)
class _Half:
    """The half u > 0 or u < 0 of E[Q(max(n - k, m*), u) - Q(max(n + k, m*), u)]."""

    weights: Array
    pair: PairLaw
    sign: int
    root: RightRoot

    def mean(self, k: Array, sigma: Array) -> Array:
        """The expectation over u and n on this half, for k and sigma [point]."""
        deviation, spread = self.pair.deviation * sigma, self.pair.spread * sigma
        edges = self._edges(k, sigma)
        half = np.diff(edges)[..., None] / 2
        size = edges[:, :-1, None] + half * (1 + _U_NODES)
        measure = half * _U_WEIGHTS * phi(size / deviation[:, None, None])
        u = self.sign * size.reshape(len(k), -1)
        measure = measure.reshape(u.shape) / deviation[:, None]
        root = self.root(u)
        whole = tail_integral(root, u, self.weights)
        below, above = (
            self._beyond(u, root, whole, shift=shift[:, None], spread=spread[:, None])
            for shift in (-k, k)
        )
        total: Array = ((below - above) * measure).sum(axis=1)
        return total

    def _edges(self, k: Array, sigma: Array) -> Array:
        """Panels [point, edge] in |u|: geometric between GELU's scale and the law's.

        Where n follows u closely, Q(max(n + k, m*)) bends sharply as m* passes
        n + k; the panels are split there.
        """
        deviation = self.pair.deviation * sigma
        top, bottom = _CUT * deviation, _first(deviation)
        powers = np.linspace(0, 1, _panels(self.pair, sigma)[0] + 1)
        edges = [np.zeros_like(top)]
        edges += [bottom * (top / bottom) ** power for power in powers]
        if self.pair.looseness < _LOOSE:
            edges += [self._crossing(shift, top) for shift in (-k, k)]
        return np.sort(np.stack(edges, axis=1), axis=1)

    def _crossing(self, shift: Array, top: Array) -> Array:
        """|u| where the root passes drift * u + shift, or `top` where it does not."""

        def sign_of_gap(size: Array, shift: Array) -> Array:
            u = self.sign * size
            return scaled_difference(self.pair.drift * u + shift, u, self.weights)

        found = elementwise.find_root(
            sign_of_gap, (np.zeros_like(top), top), args=(shift,)
        )
        return np.where(found.success, found.x, top)

    def _beyond(
        self, u: Array, root: Array, whole: Array, *, shift: Array, spread: Array
    ) -> Array:
        """E over n given u of Q(max(n + shift, m*), u), for u of shape [point, node].

        n + shift below the root m*, where Q stays `whole`, then above it.
        """
        spread = np.broadcast_to(np.maximum(spread, 1e-200), u.shape)
        centre = self.pair.drift * u + shift
        start = (root - centre) / spread
        result = whole * ndtr(start)
        low = np.maximum(start, -_CUT)
        high = np.minimum(start + _REACH / spread, _CUT)
        inside = high > low
        low, half = low[inside], (high - low)[inside] / 2
        z = low + half * (1 + _N_NODES)
        q = tail_integral(centre[inside] + spread[inside] * z, u[inside], self.weights)
        result[inside] += half * (_N_WEIGHTS * phi(z) * q).sum(axis=0)
        return result

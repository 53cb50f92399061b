r"""The normalised M-Loss of a layer, L / (||f(m)|| + eps) (paper Eq. 6).

Numerator and denominator are norms over the same nodes and depend on one another.
For independent nodes the expectation is still exact, by two Laplace transforms: with
Y = L^2 and M^2 = ||f(m)||^2,

.. math:: \frac{\sqrt Y}{M + \epsilon} = \frac{1}{2 \sqrt\pi}
    \int_0^\infty \int_0^\infty \kappa(r) s^{-3/2} e^{-r M^2} (1 - e^{-s Y}) \,ds\,dr,
    \qquad \kappa(r) = \frac{1}{\sqrt{\pi r}}
    - \epsilon \operatorname{erfcx}(\epsilon \sqrt r),

whose expectation needs each node's E exp(-r f(m)^2 - s D^2) only. The bounds hold
however the nodes depend on one another. docs/layer.md, section 5.
"""

from dataclasses import dataclass
from functools import partial
from math import log, pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import erfcx

from theory.activations import Activation, Array, Elementwise
from theory.distribution import estimated_second_moment
from theory.law import positive
from theory.layers.layout import distinct_nodes, over_nodes
from theory.layers.merged_output import marks_about_zeros, merged_points, output_square
from theory.layers.node import Node, nodes_under
from theory.layers.normalized import ratio_moment
from theory.many import estimated_mloss

_STEP = 0.5  # of log s and log r: analytic to pi / 2, which leaves exp(-19)
_TAIL = 2 * log(1e9)  # of either beyond the scales of the ratio; leaves 1e-9
_NEGLIGIBLE = 1e-12  # of the ratio
_FINER = 1e-2  # of eps: exp(-r f^2) is resolved down to outputs this small
_FAR = 100.0  # where kappa is taken from its asymptotic series
_BLOCK = 2**12


def normalized_layer_bounds(
    activation: str | Activation | Elementwise,
    k: ArrayLike,
    sigma: ArrayLike,
    *,
    nodes: int | None = None,
    eps: float = 1e-4,
    q: int = 2,
    weights: ArrayLike | None = None,
    cov: ArrayLike | None = None,
    rtol: float = 1e-3,
    seed: int = 0,
) -> tuple[Array, Array]:
    r"""Bounds on E[L / (||f(m)|| + eps)] (Eq. 6) for nodes of any dependence.

    .. math:: \frac{t^2}{\sqrt{\sum_j E[D_j^2] \sum_j E[f(m_j)^2]} + \epsilon t}
        \le E \le \min\Bigl(\sum_j E[R_j], \sqrt{\sum_j E[R_j^2]}\Bigr),
        \qquad t^2 = \sum_j (E D_j)^2,

    with R_j = D_j / (|f(m_j)| + eps), what Eq. 7 has for the node. Below by
    Cauchy-Schwarz, twice, and E[L] >= t; above as no node's output exceeds the
    layer's norm. For one node the upper bound is the value. `nodes`, `rtol`, `seed`
    and errors as for `layer_bounds`; eps > 0 in the units of f.
    """
    given: dict[str, Any] = {"q": q, "weights": weights, "cov": cov}
    floor = float(positive("eps", eps))
    found = nodes_under(activation, k, sigma, **given)
    given |= {"rtol": rtol, "seed": seed}
    mean = estimated_mloss(activation, k, sigma, **given)
    square = estimated_second_moment(activation, k, sigma, **given)
    outputs = np.array([output_square(node) for node in found]).reshape(found.k.shape)
    least = over_nodes((mean.value - mean.error) ** 2, nodes)
    most = over_nodes(square.value + square.error, nodes) * over_nodes(outputs, nodes)
    both = np.sqrt(most) + floor * np.sqrt(least)
    lower = np.divide(least, both, out=np.zeros_like(least), where=both > 0)
    floors = np.full(found.k.shape, floor)
    first, second = (
        ratio_moment(found, floors, power, rtol=rtol, seed=seed) for power in (1, 2)
    )
    sums = over_nodes(first.value + first.error, nodes)
    return lower, np.minimum(
        sums, np.sqrt(over_nodes(second.value + second.error, nodes))
    )


def expected_normalized_layer_mloss(
    activation: str | Activation | Elementwise,
    k: ArrayLike,
    sigma: ArrayLike,
    *,
    nodes: int | None = None,
    eps: float = 1e-4,
    q: int = 2,
    weights: ArrayLike | None = None,
    cov: ArrayLike | None = None,
) -> Array:
    r"""E[L / (||f(m)|| + eps)] (Eq. 6) over independent nodes; two sources.

    To about 1e-8, in a few seconds for each distinct pair of k and sigma. `nodes`
    and errors as for `expected_layer_mloss`; eps > 0 in the units of f.
    """
    floor = float(positive("eps", eps))
    found = nodes_under(activation, k, sigma, q=q, weights=weights, cov=cov)
    distinct, layout = distinct_nodes(found.two_sources(), nodes)
    laws = [_joint_law(node, floor) for node in distinct]
    mean = partial(_mean_ratio, floor=floor)
    return layout.each(lambda at, counts: mean([laws[i] for i in at], counts))


@dataclass(frozen=True)
class _JointLaw:
    """The law of D with |f(m)|, and that of |f(m)| alone, each with its measure."""

    gap: Array
    output: Array
    measure: Array
    whole_output: Array
    whole_measure: Array

    def output_transform(self, r: Array) -> Array:
        """E exp(-r f(m)^2)."""
        return np.exp(-r[:, None] * self.whole_output**2) @ self.whole_measure

    def deficit(self, s: Array, r: Array) -> Array:
        """E[exp(-r f(m)^2) (1 - exp(-s D^2))], [s, r]."""
        total = np.zeros((len(s), len(r)))
        for start in range(0, len(self.gap), _BLOCK):
            block = slice(start, start + _BLOCK)
            lost = -np.expm1(-s[:, None] * self.gap[block] ** 2) * self.measure[block]
            total += lost @ np.exp(-(self.output[block, None] ** 2) * r)
        return total


def _joint_law(node: Node, floor: float) -> _JointLaw:
    marks = marks_about_zeros(node, floor=_FINER * floor)
    points = node.points(marks)
    output = node.output(points.merged)
    share = points.gap / (output + floor) * points.measure
    kept = share * share.size > _NEGLIGIBLE * share.sum()
    return _JointLaw(
        points.gap[kept],
        output[kept],
        points.measure[kept],
        *merged_points(node, marks),
    )


def _mean_ratio(laws: list[_JointLaw], counts: Array, *, floor: float) -> float:
    first = float(counts @ [(law.gap @ law.measure) ** 2 for law in laws])
    second = float(counts @ [law.gap**2 @ law.measure for law in laws])
    size = float(counts @ [law.whole_output**2 @ law.whole_measure for law in laws])
    if first == 0:
        return 0.0
    least = first / (sqrt(second * size) + floor * sqrt(first))
    r, density, remaining = _output_grid(laws, counts, sqrt(second) / least, floor)
    start = 2 * log(least * floor / second) - _TAIL
    stop = _TAIL - 2 * log(least * floor)
    s = np.exp(np.arange(start, stop, _STEP))
    change = np.zeros((len(s), len(r)))
    for law, count in zip(laws, counts, strict=True):
        share = law.deficit(s, r) / law.output_transform(r)
        change += count * np.log1p(-np.minimum(share, 1 - 2.0**-53))
    lost = -np.expm1(change) @ (density * np.exp(remaining))
    return float((lost / np.sqrt(s)).sum() * _STEP**2 / (2 * sqrt(pi)))


def _output_grid(
    laws: list[_JointLaw], counts: Array, scale: float, floor: float
) -> tuple[Array, Array, Array]:
    """Values of r that matter, r kappa(r), and log E exp(-r M^2) at each.

    What one r adds is at most r kappa(r) sqrt(E[Y] E exp(-r M^2)); `scale` is
    sqrt(E Y) over the ratio's least.
    """
    start, stop = -2 * log(scale) - _TAIL, 2 * log(scale / floor**2) + _TAIL
    r = np.exp(np.arange(start, stop, _STEP))
    remaining = np.zeros_like(r)
    for law, count in zip(laws, counts, strict=True):
        transform = law.output_transform(r)
        remaining += count * np.log(np.maximum(transform, np.finfo(float).tiny))
    density = r * _kappa(r, floor)
    kept = density * np.exp(remaining / 2) * scale > _NEGLIGIBLE
    return r[kept], density[kept], remaining[kept]


def _kappa(r: Array, floor: float) -> Array:
    """1 / sqrt(pi r) - floor erfcx(floor sqrt r), which cancels for large r."""
    x = floor * np.sqrt(r)
    near = 1 - sqrt(pi) * x * erfcx(x)
    far = 1 / np.maximum(x, _FAR) ** 2
    series = far / 2 * (1 - 3 / 2 * far + 15 / 4 * far**2)
    return np.where(x < _FAR, near, series) / np.sqrt(pi * r)

r"""E of the norm of independent nodes' gaps, from the law of each.

.. math:: E\sqrt{Y} = \frac{1}{2 \sqrt\pi}
    \int_0^\infty \bigl(1 - E e^{-s Y}\bigr) s^{-3/2} ds

with Y the sum of D_j^2 and E exp(-s Y) the product of the nodes' transforms. In log s
the integrand is analytic in a strip and dies exponentially, so the trapezoid rule
converges geometrically. docs/layer.md, section 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, pi, sqrt

import numpy as np

from theory.activations import Array
from theory.layers.gap_points import GapPoints

_STEP = 0.35  # of log s: analytic to pi / 2, which leaves exp(-28)
_TAIL = 50.0  # of log s beyond the scales of the norm; leaves exp(-25)
_DEGREE = 12
_WIDTH = 0.25  # of a panel in log D
_DECADES = 41.0  # log of how much smaller than the largest a gap may be and count
_ALMOST = 1 - 2.0**-53
_ANGLES = pi * (np.arange(_DEGREE) + 0.5) / _DEGREE
_FROM_MOMENTS = 2 / _DEGREE * np.cos(np.outer(np.arange(_DEGREE), _ANGLES))
_FROM_MOMENTS[0] /= 2


@dataclass(frozen=True)
class GapLaw:
    """The law of D as weighted values: E[G(D)] = measure @ G(gap) for G(0) = 0.

    For G a smooth function of log D on the scale of one, as a power of D is and
    1 - exp(-s D^2); the measure has both signs.
    """

    gap: Array
    measure: Array

    def moment(self, power: int) -> float:
        """E[D^power]."""
        return float(self.gap**power @ self.measure)

    def deficit(self, s: Array) -> Array:
        """1 - E exp(-s D^2), for each s, below 1."""
        lost = -np.expm1(-s[:, None] * self.gap**2) @ self.measure
        return np.minimum(lost, _ALMOST)


def gap_law(points: GapPoints) -> GapLaw:
    """The law of D alone, moved to Chebyshev points in log D panel by panel.

    Each point's mass goes to the points of its panel so that every polynomial of
    degree 11 in log D keeps its mean.
    """
    if points.gap.size == 0:
        return GapLaw(np.zeros(1), np.zeros(1))
    largest = points.gap.max()
    depth = np.log(largest / points.gap) / _WIDTH
    kept = depth < _DECADES / _WIDTH
    panel = depth[kept].astype(int)
    angle = np.arccos(np.clip(2 * (depth[kept] - panel) - 1, -1, 1))
    moments = [
        np.bincount(panel, points.measure[kept] * np.cos(n * angle))
        for n in range(_DEGREE)
    ]
    at = np.arange(len(moments[0]))[:, None] + (1 + np.cos(_ANGLES)) / 2
    measure = np.array(moments).T @ _FROM_MOMENTS
    return GapLaw(largest * np.exp(-_WIDTH * at.ravel()), measure.ravel())


def mean_norm(laws: Sequence[GapLaw], counts: Array) -> float:
    """E sqrt(sum D^2) over independent nodes, `counts` of each law; about 1e-10."""
    lowest = sqrt(counts @ [law.moment(1) ** 2 for law in laws])
    if lowest == 0:
        return 0.0
    square = float(counts @ [law.moment(2) for law in laws])
    start, stop = 2 * log(lowest / square) - _TAIL, _TAIL - 2 * log(lowest)
    s = np.exp(np.arange(start, stop, _STEP))
    remaining = np.zeros_like(s)
    for law, count in zip(laws, counts, strict=True):
        remaining += count * np.log1p(-law.deficit(s))
    lost = -np.expm1(remaining)
    return float((lost / np.sqrt(s)).sum() * _STEP / (2 * sqrt(pi)))

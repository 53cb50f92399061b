r"""E[D] of two sources to fourth order in sigma, for a smooth activation.

    2k E[D] = V/2 int_{-k}^k |f''| - V^2 (1 - p) / (12 p) sum_j |f'''(t_j)|
              + 1/8 sum_i w_i (v_i^2 - v_m^2) [sign(f'') f''']_{-k}^k + O(sigma^6)

with p = w_1 w_2 and t_j the inflections inside (-k, k), where D loses the most: S has
a zero there, and the hat that S averages f'' under reaches over both signs. The last
term is the ends' and dies with f'''(k). docs/law.md, section 2.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.differentiate import derivative

from theory.activations import Activation, Array, Elementwise
from theory.analysis import resolve
from theory.law import error_law, positive


@dataclass(frozen=True)
class Expansion:
    """E[D] = first sigma^2 + second sigma^4 + O(sigma^6) at fixed k; one entry per k.

    The rest is small where sigma is, beside both the scale of f and the distance
    from k to the nearest inflection.
    """

    first: Array
    second: Array

    def __call__(self, sigma: ArrayLike) -> Array:
        """The two terms at sigma, broadcast against k."""
        square = positive("sigma", sigma) ** 2
        return self.first * square + self.second * square**2


def small_error_expansion(
    activation: str | Activation | Elementwise,
    k: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    cov: ArrayLike | None = None,
) -> Expansion:
    """The first two coefficients of E[D] in sigma^2, for two sources.

    `k`, `weights` [2] and `cov` [2, 2] as in `expected_mloss`. Raises ValueError as
    it does, where a weight is zero, and for an activation with a kink (its next
    term is of another order) or with no curvature.
    """
    f = resolve(activation)
    if f.kinks:
        raise ValueError(f"activation {f.name!r} has kinks; the expansion is for none")
    law = error_law(2, weights, cov)
    p = float(np.prod(law.weights))
    if p == 0:
        raise ValueError(f"weights must both be > 0, got {law.weights.tolist()}")
    width = positive("k", k)
    spread = law.weights @ (law.source_variances**2 - law.merged_variance**2)
    at_inflections = law.jensen_variance**2 * (1 - p) / (12 * p)
    second = spread / 8 * _end_term(f, width) - at_inflections * _steepness(f, width)
    first = law.jensen_variance / 2 * variation_inside(f, width)
    return Expansion(first / (2 * width), second / (2 * width))


def variation_inside(f: Activation, k: Array) -> Array:
    """int |f''| over (-k, k) for an f without kinks: how far f' travels in there."""
    turns = np.clip(np.array(f.inflections), -k[..., None], k[..., None])
    ends = k[..., None]
    slopes = f.derivative(np.concatenate([-ends, turns, ends], axis=-1))
    travelled: Array = np.abs(np.diff(slopes, axis=-1)).sum(axis=-1)
    return travelled


def _steepness(f: Activation, k: Array) -> Array:
    """The sum of |f'''| over the inflections inside (-k, k)."""
    turns = np.array(f.inflections)
    inside = np.abs(turns) < k[..., None]
    total: Array = (np.abs(_third(f, turns)) * inside).sum(axis=-1)
    return total


def _end_term(f: Activation, k: Array) -> Array:
    """sign(f'') f''' at k less at -k."""
    sides = [np.sign(f.curvature(end)) * _third(f, end) for end in (k, -k)]
    return sides[0] - sides[1]


def _third(f: Activation, x: Array) -> Array:
    """f''' by extrapolated differences of f''."""
    if x.size == 0:
        return np.zeros_like(x)
    slope: Array = derivative(f.curvature, x, order=8, initial_step=0.25).df
    return slope

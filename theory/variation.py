r"""The total-variation law: E[D] <= TV(f') V / (4k), with equality in the limit.

f(x) is a linear function plus the integral of relu(x - t) df'(t), so by the
triangle inequality D is at most TV(f') times the D of a shifted ReLU, whose
expectation is at most V / (4k) (see `theory.signed`).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.activations import Activation
from theory.analysis import resolve
from theory.law import error_law, scales

Array = NDArray[np.float64]


def total_variation(activation: str | Activation) -> float:
    """TV(f'), the total variation of the derivative over the real line.

    f' is monotone between the points where it turns or jumps, so the variation is
    the sum of its steps from one to the next. GELU's is
    4 (Phi(r) + r phi(r)) - 3 at r = sqrt 2, about 1.5156. docs/theory.md, section 3.
    """
    return float(np.abs(np.diff(turning_slopes(resolve(activation)))).sum())


def turning_slopes(f: Activation) -> Array:
    """f' wherever it may turn, from minus to plus infinity, monotone in between.

    Its limits, and both sides of each kink and each inflection.
    """
    points = np.array(sorted({*f.kinks, *f.inflections}))
    sides = np.nextafter(points[:, None], [-np.inf, np.inf])
    return np.array([f.slopes[0], *f.derivative(sides.ravel()), f.slopes[1]])


def mloss_bound(
    activation: str | Activation,
    k: ArrayLike,
    sigma: ArrayLike,
    *,
    q: int = 2,
    weights: ArrayLike | None = None,
    cov: ArrayLike | None = None,
) -> Array:
    """TV(f') V / (4k), an upper bound on the expected node M-Loss everywhere.

    V = sigma^2 (sum_i w_i C_ii - w' C w) is the Jensen variance; for q equal
    weights and independent errors sigma^2 (1 - 1/q). Broadcasts over k and sigma,
    in the activation's units. Raises as `expected_mloss` does.
    """
    law = error_law(q, weights, cov)
    k, sigma = scales(k, sigma)
    # (sigma / k) * sigma rather than sigma^2 / k, which may overflow.
    return total_variation(activation) * law.jensen_variance * (sigma / k) * sigma / 4

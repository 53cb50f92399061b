"""How far the total-variation law holds: the largest sigma for each k.

TV(f') V / (4k) never falls below E[D]. It exceeds it by a fraction that grows with
sigma, by two effects: |x| > k takes part of the bends, and errors as wide as a bend
reach over its inflections. docs/law.md, section 3.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from theory.activations import Activation, Array, Elementwise
from theory.analysis import resolve
from theory.expectation import expected_mloss
from theory.law import positive
from theory.second_order import small_error_expansion
from theory.variation import mloss_bound

AnyActivation: TypeAlias = str | Activation | Elementwise

_SMALLEST = 1e-3  # sigma looked at, in units of min(1, k)
_LARGEST = 1e3  # in units of 1 + k
_XTOL = 1e-9  # of log sigma


def excess(activation: AnyActivation, k: ArrayLike, sigma: ArrayLike) -> Array:
    """TV V/(4k) / E[D] - 1, for two equal, independent sources; >= 0 to rounding.

    Broadcasts over k and sigma. Raises ValueError as `expected_mloss` does.
    """
    f = resolve(activation)
    return mloss_bound(f, k, sigma) / expected_mloss(f, k, sigma) - 1


def largest_sigma(activation: AnyActivation, k: float, *, within: float) -> float:
    """The sigma at which the law exceeds E[D] by the fraction `within`, for this k.

    Two equal, independent sources; good to 1e-9 relative where E[D] is. Zero where
    it would be below min(1, k)/1000, as it is when the bends outside (-k, k) alone
    make up more than the fraction. Raises ValueError unless k and `within` are finite
    and > 0, or where f is a straight line.
    """
    f = resolve(activation)
    width = float(positive("k", k))
    level = float(positive("within", within))
    if not mloss_bound(f, width, 1.0) > 0:
        raise ValueError(f"activation {f.name!r} is a straight line and loses nothing")

    def above(log_sigma: float) -> float:
        return float(excess(f, width, np.exp(log_sigma))) - level

    low, high = np.log([_SMALLEST * min(1, width), _LARGEST * (1 + width)])
    return (
        0.0 if above(low) > 0 else float(np.exp(brentq(above, low, high, xtol=_XTOL)))
    )


def predicted_sigma(activation: AnyActivation, k: ArrayLike, *, within: float) -> Array:
    """What `largest_sigma` is with E[D] cut after sigma^4; arrays over k.

    Zero where the curvature outside (-k, k) is more than the fraction, infinite where
    the sigma^4 term does not lower E[D]. Raises as `small_error_expansion` does.
    """
    f = resolve(activation)
    level = float(positive("within", within))
    width = positive("k", k)
    expansion = small_error_expansion(f, width)
    spare = expansion.first - mloss_bound(f, width, 1.0) / (1 + level)
    loss = np.maximum(-expansion.second, 0)
    unbounded = np.full(width.shape, np.inf)
    square = np.divide(spare, loss, out=unbounded, where=loss > 0)
    return np.where(spare > 0, np.sqrt(np.maximum(square, 0)), 0.0)

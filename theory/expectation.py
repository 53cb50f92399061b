"""Expected node-level M-Loss, exactly: one entry for every activation."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.activations import GELU, Activation, Elementwise, LeakyReLU
from theory.analysis import resolve
from theory.gelu import expected_gelu, follows_closely
from theory.law import ErrorLaw, error_law, scales
from theory.pair import expected_pair
from theory.signed import RELU_KERNEL, signed_gap
from theory.smooth import signed_expectation

Array = NDArray[np.float64]

_NARROWEST = 3e-6  # k in units of sigma
_SMALLEST = 1e-7  # sigma in units of k, or of the width of a bend
_LARGEST = 1e8


def expected_mloss(
    activation: str | Activation | Elementwise,
    k: ArrayLike,
    sigma: ArrayLike,
    *,
    q: int = 2,
    weights: ArrayLike | None = None,
    cov: ArrayLike | None = None,
) -> Array:
    r"""E | f(sum_i w_i h_i) - sum_i w_i f(h_i) | for h_i = x + e_i (paper Section 4).

    x ~ U(-k, k) and e ~ N(0, sigma^2 cov) are independent; `weights` [q] sum to 1 and
    default to 1/q, `cov` [q, q] is in units of sigma^2 and defaults to the identity.
    float64, broadcast over k and sigma, in the units of the activation's output.

    `activation` is a name, an `Activation`, or a function of a float64 array alone.
    ReLU and Leaky ReLU are closed forms good to 1e-12 relative. The others are
    quadratures good to 1e-10 (1e-8 for a bare function): for two sources always, for
    more where the function is convex or concave. A weight below 1e-3 costs two sources
    digits in proportion: D is then that small beside f. Weights of zero do not count.

    Raises ValueError naming the argument where k or sigma is not finite and > 0, the
    weights or covariance are not of a law, or no exact form is known here.
    """
    f = resolve(activation)
    law = error_law(q, weights, cov).active()
    k, sigma = scales(k, sigma)
    if law.jensen_variance == 0:
        return np.zeros(k.shape)
    if isinstance(f, LeakyReLU):
        return abs(1 - f.negative_slope) * _expected_relu(k, sigma, law)
    # Past these the value is its limit to 1e-11: quadratic in sigma, constant in k.
    within = np.maximum(k, _NARROWEST * sigma)
    wide = np.maximum(sigma, _SMALLEST * np.minimum(within, 1))
    value = _by_quadrature(f, within, wide, law)
    return value * (sigma / wide) ** 2


def _by_quadrature(f: Activation, k: Array, sigma: Array, law: ErrorLaw) -> Array:
    if (sigma > _LARGEST).any():
        raise ValueError(
            f"sigma must be at most {_LARGEST:g} for activation {f.name!r}, whose "
            f"bends it dwarfs, got {sigma.max():g}"
        )
    if f.bends_one_way():
        return np.abs(signed_expectation(f, k, sigma, law))
    if law.q == 2:
        return _expected_two(f, k, sigma, law)
    raise ValueError(
        f"no exact expectation is known here for activation {f.name!r}, which bends "
        f"both ways, with {law.q} sources; estimated_mloss samples it"
    )


def _expected_two(f: Activation, k: Array, sigma: Array, law: ErrorLaw) -> Array:
    """The fast quadrature of GELU where it is good, the general one elsewhere."""
    if f == GELU and not follows_closely(law):
        return expected_gelu(k, sigma, law)
    return expected_pair(f, k, sigma, law)


def _expected_relu(k: Array, sigma: Array, law: ErrorLaw) -> Array:
    """ReLU is convex, so |gap| is the gap, and homogeneous, so sigma is the unit."""
    return sigma * signed_gap(k / sigma, np.ones_like(k), law, RELU_KERNEL)

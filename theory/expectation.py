"""Expected node-level M-Loss, exactly: one entry for every activation."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.activations import GELU, Activation, LeakyReLU, resolve
from theory.gelu import expected_gelu
from theory.law import ErrorLaw, error_law, scales
from theory.signed import RELU_KERNEL, signed_gap

Array = NDArray[np.float64]


def expected_mloss(
    activation: str | Activation,
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

    ReLU and Leaky ReLU are closed forms for any q, good to 1e-12 relative; GELU, for
    two sources, is a quadrature good to 1e-10. Sources of weight zero do not count.

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
    if f == GELU and law.q == 2:
        return expected_gelu(k, sigma, law)
    raise ValueError(
        f"no exact expectation is known here for activation {f.name!r} with "
        f"{law.q} sources: relu and leaky_relu take any number, gelu takes 2; "
        "mloss_bound bounds the others"
    )


def _expected_relu(k: Array, sigma: Array, law: ErrorLaw) -> Array:
    """ReLU is convex, so |gap| is the gap, and homogeneous, so sigma is the unit."""
    return sigma * signed_gap(k / sigma, np.ones_like(k), law, RELU_KERNEL)

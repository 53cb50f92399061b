r"""The law of D itself, for ReLU and Leaky ReLU and the paper's two sources.

For ReLU, D = min(|a|, |b|) / 2 where a and b differ in sign, and 0 where they agree.
Given x they are independent, so P(D > d | x) = 2 Phi(y - c) Phi(-y - c) at
y = x / sigma, c = 2 d / sigma, and everything else is an average over y. The closed
forms are derived by `python -m theory derive relu_distribution`. Leaky ReLU's D is
|1 - negative_slope| times ReLU's.

E[D^2], which a layer's M-Loss needs, is here for every activation and number of
sources. All else is for equal weights and independent errors of one variance (paper
Section 4). All broadcast. With weights w_1, w_2 and variances s_1^2, s_2^2
D = min(w_1 |a|, w_2 |b|), and the chance that it exceeds d given x is
Phi((x - d/w_1)/s_1) Phi(-(x + d/w_2)/s_2) and the same with 1 and 2 exchanged.
"""

from math import pi, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf, ndtr, roots_legendre

from theory.activations import Activation, Elementwise, LeakyReLU
from theory.analysis import resolve
from theory.expectation import expected_mloss
from theory.law import scales
from theory.layers.node import Integrand, Nodes, nodes_under
from theory.layers.node_means import node_means
from theory.many import Evaluation
from theory.signed import phi

Array = NDArray[np.float64]

# Phi(y - c) Phi(-y - c) is entire in y and below 1e-19 of its peak past y = 9.
_REACH = 9.0
_NODES, _NODE_WEIGHTS = roots_legendre(32)
# From here on k is infinite in float64: what is left out is of order exp(-k^2 / 2).
_WIDEST = 40.0
_CLOSED = 1e-12  # relative accuracy of the closed form of E[D^2]


def mloss_survival(
    activation: str | Activation, d: ArrayLike, *, k: ArrayLike, sigma: ArrayLike
) -> Array:
    r"""P(D > d), with relative accuracy until it underflows.

    (2 sigma / k) int_0^{k / sigma} Phi(y - c) Phi(-y - c) dy with c = 2 d / sigma for
    ReLU; 1 for d < 0. The integrand is positive: nothing cancels, and the relative
    error is a few c^2 eps. Raises ValueError for another activation, for k or sigma
    not in (0, inf) and for a d that is NaN or does not broadcast with them.
    """
    slope = _slope_change(activation)
    k, sigma = scales(k, sigma)
    d = _threshold(d, k)
    if slope == 0:
        return np.where(d < 0, 1.0, 0.0)
    with np.errstate(over="ignore"):
        # Phi(-y - c) is zero past c = 40, so an infinite d is welcome.
        c = np.clip(d / sigma * (2 / slope), 0, _WIDEST)
    top = np.minimum(k / sigma, _REACH)
    mean = np.zeros_like(c)
    for node, weight in zip(_NODES, _NODE_WEIGHTS, strict=True):
        y = top * (1 + node) / 2
        mean += weight * ndtr(y - c) * ndtr(-y - c)
    return np.where(d < 0, 1.0, sigma / k * top * mean)


def mloss_cdf(
    activation: str | Activation, d: ArrayLike, *, k: ArrayLike, sigma: ArrayLike
) -> Array:
    """P(D <= d) = 1 - `mloss_survival`: 0 below d = 0, where it jumps to P(D = 0)."""
    return 1 - mloss_survival(activation, d, k=k, sigma=sigma)


def mloss_zero_probability(
    activation: str | Activation, k: ArrayLike, sigma: ArrayLike
) -> Array:
    r"""P(D = 0): the chance that both sources lie on one side of the kink.

    With z = k / sigma it is 1 - (2/z) (z Phi(z) Phi(-z) - phi(z) erf(z / sqrt 2)
    + erf(z) / (2 sqrt pi)): 1 - sigma / (k sqrt pi) for k >> sigma, and 1/2 for
    k << sigma. Raises as `mloss_survival` does.
    """
    slope = _slope_change(activation)
    k, sigma = scales(k, sigma)
    if slope == 0:
        return np.ones(k.shape)
    z = np.minimum(k / sigma, _WIDEST)
    inside = z * ndtr(z) * ndtr(-z) - phi(z) * erf(z / sqrt(2))
    return 1 - 2 * (sigma / k) * (inside + erf(z) / (2 * sqrt(pi)))


def mloss_second_moment(
    activation: str | Activation | Elementwise,
    k: ArrayLike,
    sigma: ArrayLike,
    *,
    q: int = 2,
    weights: ArrayLike | None = None,
    cov: ArrayLike | None = None,
) -> Array:
    r"""E[D^2], in the squared units of the activation's output; two sources.

    Arguments as for `expected_mloss`. For ReLU under the paper's law, z = k / sigma,

    .. math:: \frac{\sigma^2}{2z} \Bigl[\bigl(z + \tfrac{z^3}{3}\bigr)
        \Phi(z) \Phi(-z) - \tfrac{z^2 + 2}{3} \varphi(z)
        \operatorname{erf}\tfrac{z}{\sqrt 2} - \tfrac{z}{3} \varphi(z)^2
        + \frac{\operatorname{erf} z}{6 \sqrt\pi}\Bigr]

    which is sigma^3 / (12 sqrt(pi) k) for k >> sigma and sigma^2 (1 - 2/pi) / 8 for
    k << sigma. Otherwise by quadrature, to 1e-8, or 1e-6 for activations with kinks
    that bend both ways under unequal weights and for bare functions. Raises
    ValueError as `expected_mloss` does, for more than two sources of positive weight,
    and for a sigma outside [1e-7, 1e8] unless the activation is homogeneous.
    """
    nodes = nodes_under(activation, k, sigma, q=q, weights=weights, cov=cov)
    return _second_moment(nodes.two_sources()).value


def estimated_second_moment(
    activation: str | Activation | Elementwise,
    k: ArrayLike,
    sigma: ArrayLike,
    *,
    q: int = 2,
    weights: ArrayLike | None = None,
    cov: ArrayLike | None = None,
    rtol: float = 1e-3,
    seed: int = 0,
) -> Evaluation:
    """E[D^2] for any number of sources, with its error.

    For two sources the value of `mloss_second_moment` and its stated accuracy. For
    more it is sampled until error <= rtol * value, where
    `error` is three standard errors of sixteen scramblings of a Sobol sequence.
    Raises ValueError as `mloss_second_moment` does and for rtol outside (0, 1), and
    ArithmeticError where 2^17 points a scrambling do not suffice.
    """
    nodes = nodes_under(activation, k, sigma, q=q, weights=weights, cov=cov)
    return _second_moment(nodes, rtol=rtol, seed=seed)


def _second_moment(nodes: Nodes, *, rtol: float = 1e-3, seed: int = 0) -> Evaluation:
    law = nodes.law
    alike = law.q == 2 and law.weights[0] == law.weights[1]
    if isinstance(nodes.f, LeakyReLU) and alike and (law.cov == np.eye(2)).all():
        value = _relu_second_moment(nodes.k, nodes.sigma)
        value = abs(1 - nodes.f.negative_slope) ** 2 * value
        return Evaluation(value, _CLOSED * value)
    square = Integrand(lambda gap, _: gap**2)
    return node_means(nodes, [square] * nodes.k.size, rtol=rtol, seed=seed)


def _relu_second_moment(k: Array, sigma: Array) -> Array:
    z = np.minimum(k / sigma, _WIDEST)
    inside = (
        (z + z**3 / 3) * ndtr(z) * ndtr(-z)
        - (z**2 + 2) / 3 * phi(z) * erf(z / sqrt(2))
        - z / 3 * phi(z) ** 2
        + erf(z) / (6 * sqrt(pi))
    )
    return sigma**2 / 2 * (sigma / k) * inside


def mloss_variance(
    activation: str | Activation, k: ArrayLike, sigma: ArrayLike
) -> Array:
    """Var D = E[D^2] - E[D]^2, which cannot cancel: E[D]^2 is below a third of E[D^2].

    Raises as `mloss_survival` does.
    """
    mean = expected_mloss(activation, k, sigma)
    return mloss_second_moment(activation, k, sigma) - mean**2


def _slope_change(activation: str | Activation) -> float:
    """|1 - a|, what Leaky ReLU's D is of ReLU's."""
    f = resolve(activation)
    if not isinstance(f, LeakyReLU):
        raise ValueError(
            f"the law of D is known for relu and leaky_relu, not for {f.name!r}"
        )
    return abs(1 - f.negative_slope)


def _threshold(d: ArrayLike, k: Array) -> Array:
    array = np.asarray(d, dtype=np.float64)
    if np.isnan(array).any():
        raise ValueError("d must not be NaN")
    try:
        shape = np.broadcast_shapes(array.shape, k.shape)
    except ValueError:
        raise ValueError(
            f"d must broadcast against k and sigma, got the shapes {array.shape} "
            f"and {k.shape}"
        ) from None
    return np.broadcast_to(array, shape)

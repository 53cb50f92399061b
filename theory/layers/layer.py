r"""A layer's M-Loss and the normalised forms, for ReLU and Leaky ReLU.

All here is for the paper's law (Section 4): two sources, equal weights, independent
errors of one variance; a layer has independent nodes of one k and sigma. Everything
broadcasts over k and sigma. docs/many.md, section 2.
"""

from math import pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, roots_legendre

from theory.activations import Activation, Array, LeakyReLU
from theory.analysis import resolve
from theory.distribution import mloss_second_moment, mloss_survival
from theory.expectation import expected_mloss
from theory.law import positive, scales
from theory.panels import panel_rule
from theory.signed import phi

_CUT = 9.0  # P(D > d) and the gap given m are below 1e-17 of their peak beyond
_NODES, _WEIGHTS = roots_legendre(48)
_STEP = 0.25  # of log s: the integrand is analytic to pi / 2, which leaves e^-39
_TAIL = 64.0  # of log s; what lies beyond falls as e^-32


def layer_bounds(
    activation: str | Activation, k: ArrayLike, sigma: ArrayLike, *, nodes: int
) -> tuple[Array, Array]:
    r"""sqrt(d) E[D] <= E[L] <= sqrt(d E[D^2]) for the norm L of d nodes (Eq. 3).

    Both by Jensen's inequality: E||D|| >= ||E D||, and (E L)^2 <= E[L^2], which is
    d E[D^2] exactly. They need one law for all nodes and not their independence.
    Raises ValueError for other activations than ReLU and Leaky ReLU, k or sigma not
    in (0, inf) and nodes not a count.
    """
    d = _count(nodes)
    square = mloss_second_moment(activation, k, sigma)
    return sqrt(d) * expected_mloss(activation, k, sigma), np.sqrt(d * square)


def expected_layer_mloss(
    activation: str | Activation, k: ArrayLike, sigma: ArrayLike, *, nodes: int
) -> Array:
    r"""E[L], L^2 the sum of D^2 over d independent nodes (Eqs. 3 and 5); to 1e-10.

    .. math:: E\sqrt{L^2} = \frac{1}{2 \sqrt\pi}
        \int_0^\infty \bigl(1 - g(s)^d\bigr) s^{-3/2} ds, \qquad g(s) = E e^{-s D^2},

    where 1 - g(s) = int 2 s t exp(-s t^2) P(D > t) dt does not cancel. Raises as
    `layer_bounds` does.
    """
    d = _count(nodes)
    square = mloss_second_moment("relu", k, sigma)
    slope = _slope(activation)
    k, sigma = scales(k, sigma)
    ratio, unit = (k / sigma).reshape(-1), (square / sigma**2).reshape(-1)
    norms = [_mean_norm(z, s, d) for z, s in zip(ratio, unit, strict=True)]
    return np.asarray(abs(1 - slope) * sigma * np.reshape(norms, k.shape))


def normalized_mloss(
    activation: str | Activation,
    k: ArrayLike,
    sigma: ArrayLike,
    *,
    eps: ArrayLike = 1e-4,
) -> Array:
    r"""E[D / (|f(m)| + eps)] (Eq. 7), m the merged pre-activation.

    To 1e-10 for k above 1e-4 sigma. For ReLU D is as large on average where m < 0,
    where the merged output is zero: that half contributes E[D] / (2 eps) and
    dominates for small eps. For m > 0, with
    t = sigma / sqrt 2 and y = m / t, the mean of D given m is t (phi(y) - y Phi(-y)),
    and m has the density (Phi(y + k/t) - Phi(y - k/t)) / (2k). Leaky ReLU's D is
    |1 - a| times ReLU's and its output |a| |m| for m < 0. Raises ValueError for other
    activations and for k, sigma or eps not in (0, inf).
    """
    slope = _slope(activation)
    k, sigma = scales(k, sigma)
    k, sigma, eps = np.broadcast_arrays(k, sigma, positive("eps", eps))
    # In units of t = sigma / sqrt 2, which D / (|f(m)| + eps) does not have.
    half_width, floor = k / sigma * sqrt(2), eps / sigma * sqrt(2)
    sides = _mean_ratio(half_width, floor, 1.0)
    sides = sides + _mean_ratio(half_width, floor, abs(slope))
    return abs(1 - slope) * sides


def _mean_norm(ratio: float, square: float, d: int) -> float:
    """E[L] for ReLU at sigma = 1 and k = ratio, by the trapezoid rule in log s."""
    centre = -np.log(d * square)
    log_s = np.arange(centre - _TAIL, max(centre, 0.0) + _TAIL, _STEP)
    s = np.exp(log_s)
    top = np.minimum(_CUT / 2, _CUT / np.sqrt(s))[:, None]
    t = top * (1 + _NODES) / 2
    chance = mloss_survival("relu", t, k=ratio, sigma=1.0)
    density = 2 * s[:, None] * t * np.exp(-s[:, None] * t**2)
    gone = (density * chance * top * _WEIGHTS / 2).sum(axis=1)
    lost = -np.expm1(d * np.log1p(-gone))
    return float((lost / np.sqrt(s)).sum() * _STEP / (2 * sqrt(pi)))


def _mean_ratio(half_width: Array, eps: Array, slope: float) -> Array:
    """E[D / (slope |m| + eps)] over one sign of m, for ReLU's D and t = 1.

    Where the denominator varies, m = (eps / slope) (e^r - 1) makes its part dr.
    """
    width, floor = half_width[..., None], eps[..., None]
    bends = np.array([0.0, 1.0, 2.0, 4.0, 6.0, _CUT])
    near = np.clip(width + np.append(-bends, bends), 0, _CUT)
    marks = np.broadcast_to(bends, (*width.shape[:-1], len(bends)))
    edges = np.concatenate([marks, near], axis=-1)
    if slope == 0:
        m, measure = panel_rule(edges)
        measure = measure / floor
    else:
        edges = np.log1p(slope * edges / floor)
        steps = edges.max(axis=-1, keepdims=True) * np.linspace(0, 1, 13)
        r, measure = panel_rule(np.concatenate([edges, steps], axis=-1))
        m, measure = floor / slope * np.expm1(r), measure / slope
    gap = phi(m) - m * ndtr(-m)
    density = (ndtr(width - m) - ndtr(-width - m)) / (2 * width)
    total: Array = (gap * density * measure).sum(axis=-1)
    return total


def _slope(activation: str | Activation) -> float:
    f = resolve(activation)
    if not isinstance(f, LeakyReLU):
        raise ValueError(
            f"layers are known for relu and leaky_relu, not for {f.name!r}"
        )
    return f.negative_slope


def _count(nodes: Any) -> int:
    whole = isinstance(nodes, (int, np.integer)) and not isinstance(nodes, bool)
    if not whole or nodes < 1:
        raise ValueError(f"nodes must be a whole number >= 1, got {nodes!r}")
    return int(nodes)

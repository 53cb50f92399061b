r"""What E[D] of a gated node tends to as its errors shrink, and what it never exceeds.

With a source's departures alpha_i, beta_i from the merged gate and up, to second order

    D = | 1/2 f''(g0) u0 sum_i w_i alpha_i^2 + f'(g0) sum_i w_i alpha_i beta_i |:

the gate's bend, as for a node without a gate, and the covariance of gate and up, which
asks for no bend at all. docs/gated.md, sections 3 and 4.
"""

from itertools import pairwise
from math import pi, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import erf, roots_legendre

from theory.activations import Activation, Array, Elementwise
from theory.analysis import resolve
from theory.gated.law import GatedLaw, gated_laws
from theory.gated.means import mean_absolute, mean_product
from theory.gated.rows import Rows, integrate_rows
from theory.variation import total_variation

_PANELS = 48  # over the reach of f
_TOLERANCE = 1e-11
_NODES, _WEIGHTS = roots_legendre(14)


def gated_mloss_limit(
    activation: str | Activation | Elementwise,
    k: ArrayLike,
    sigma: ArrayLike,
    *,
    k_up: ArrayLike | None = None,
    sigma_up: ArrayLike | None = None,
    correlation: float = 0.0,
    q: int = 2,
    weights: ArrayLike | None = None,
    cov: ArrayLike | None = None,
) -> Array:
    r"""The leading order of E[D] as sigma and sigma_up shrink together.

    .. math:: \frac{V}{4 k k_u} \int_{-k}^{k} \int_{-k_u}^{k_u} E\bigl|z_1
        (\tfrac12 f''(g) u \sigma^2 z_1 + f'(g) \sigma \sigma_u z_2)\bigr| \, du \, dg

    for standard normals z_1, z_2 of the given correlation, V the Jensen variance in
    units of sigma^2; f'' has a mass at each kink. Exact for two sources. For more,
    different directions of departure partly cancel, and it is an upper bound on the
    leading order. Arguments as for `expected_gated_mloss`; relative accuracy 1e-8.
    """
    f = resolve(activation)
    shape, laws = gated_laws(
        k,
        sigma,
        k_up=k_up,
        sigma_up=sigma_up,
        correlation=correlation,
        q=q,
        weights=weights,
        cov=cov,
    )
    return np.array([_limit(f, law) for law in laws]).reshape(shape)


def gated_mloss_bound(
    activation: str | Activation | Elementwise,
    k: ArrayLike,
    sigma: ArrayLike,
    *,
    k_up: ArrayLike | None = None,
    sigma_up: ArrayLike | None = None,
    correlation: float = 0.0,
    q: int = 2,
    weights: ArrayLike | None = None,
    cov: ArrayLike | None = None,
) -> Array:
    """An upper bound on E[D] everywhere: the bend's part plus the covariance's.

    Proved for every f of finite TV(f') in docs/gated.md, section 4. Arguments as for
    `expected_gated_mloss`.
    """
    f = resolve(activation)
    shape, laws = gated_laws(
        k,
        sigma,
        k_up=k_up,
        sigma_up=sigma_up,
        correlation=correlation,
        q=q,
        weights=weights,
        cov=cov,
    )
    bounds = [_bend_bound(f, law) + _covariance_bound(f, law) for law in laws]
    return np.array(bounds).reshape(shape)


def _limit(f: Activation, law: GatedLaw) -> float:
    V = law.errors.jensen_variance

    def density(_: Rows, g: Array) -> Array:
        slope = f.derivative(g) * law.sigma_up
        bend = np.abs(f.curvature(g)) * law.sigma * law.k_up / 2
        return _form(slope * law.correlation, np.abs(slope) * law.freedom, bend)

    marks = [*np.linspace(*f.reach, _PANELS + 1), *f.kinks, *f.inflections]
    edges = np.clip([-law.k, *marks, law.k], -law.k, law.k)
    smooth = integrate_rows(density, edges[None], tolerance=_TOLERANCE)[0][0]
    pairs = zip(f.kinks, f.jumps, strict=True)
    kinks = sum(abs(jump) for kink, jump in pairs if abs(kink) < law.k)
    kinked = kinks * law.sigma * law.k_up / 4
    return float(V * law.sigma * (smooth + kinked) / (2 * law.k))


def _form(centre: Array, across: Array, half_width: Array) -> Array:
    r"""E|z_1 (y z_1 + across z)| of independent normals, y uniform about a centre.

    .. math:: \frac2\pi \bigl(c + y \arctan\tfrac yc\bigr), \qquad
        \frac1\pi \bigl(c y + (y^2 + c^2) \arctan\tfrac yc\bigr)

    are the mean at y, with c = across, and its primitive. Their difference cancels
    where y varies little; Gauss's rule is exact to rounding there.
    """
    narrow = half_width <= np.hypot(centre, across) / 2
    result = np.empty_like(centre)
    y = centre[narrow, None] + half_width[narrow, None] * _NODES
    c = across[narrow, None]
    result[narrow] = (c + y * np.arctan2(y, c)) @ _WEIGHTS / pi
    y, c, h = centre[~narrow], across[~narrow], half_width[~narrow]
    rise = _form_primitive(y + h, c) - _form_primitive(y - h, c)
    result[~narrow] = rise / (2 * h)
    return np.asarray(result)


def _form_primitive(y: Array, c: Array) -> Array:
    primitive: Array = (c * y + (y**2 + c**2) * np.arctan2(y, c)) / pi
    return primitive


def _bend_bound(f: Activation, law: GatedLaw) -> float:
    """Bounds E|S m_up| by TV(f') / (4k), or by f's distance from a straight line."""
    errors = law.errors
    V, merged = errors.jensen_variance, errors.merged_variance
    spread = law.sigma_up * sqrt(merged)
    up = float(mean_absolute(*(np.array([a]) for a in (0.0, law.k_up, spread)))[0])
    tie = errors.weights @ (errors.cov @ errors.weights - merged) ** 2
    reached = float(erf(law.k_up / (sqrt(2) * spread))) if spread > 0 else 1.0
    tied = (law.correlation * law.sigma_up) ** 2 * tie * reached / law.k_up
    by_variation = total_variation(f) * law.sigma / (4 * law.k) * (V * up + tied)
    sizes = errors.weights @ np.sqrt(_departures(law))
    by_slope = np.ptp(_slopes(f)) / 2 * sizes * np.hypot(law.k_up / sqrt(3), spread)
    return float(law.sigma * min(by_variation, by_slope))


def _covariance_bound(f: Activation, law: GatedLaw) -> float:
    """Bounds E|sum_i w_i (f(g_i) - f(m)) beta_i| by f's steepest or its mean slope."""
    errors = law.errors
    steepest = np.abs(_slopes(f)).max()
    product = mean_product(law.correlation) * errors.jensen_variance
    reach = np.sqrt(np.maximum(errors.source_variances, errors.merged_variance))
    beyond = errors.weights @ (_departures(law) * reach) * law.sigma / (2 * law.k)
    mean_slope = _variation(f, law.k) / (2 * law.k)
    by_mean = mean_slope * product + sqrt(3) * steepest * beyond
    return float(law.sigma * law.sigma_up * min(steepest * product, by_mean))


def _departures(law: GatedLaw) -> Array:
    """Var alpha_i [q], in units of sigma^2."""
    errors = law.errors
    departure = np.eye(errors.q) - errors.weights
    variances = ((departure @ errors.cov) * departure).sum(axis=1)
    return np.asarray(np.maximum(variances, 0))


def _slopes(f: Activation) -> Array:
    """The values of f' at infinity, its turning points and kinks: its extremes."""
    sides = np.nextafter([*f.kinks, *f.inflections], [[-np.inf], [np.inf]])
    return np.array([*f.slopes, *f.derivative(sides).ravel()])


def _variation(f: Activation, k: float) -> float:
    """The total variation of f on (-k, k), between the points where f turns."""
    inside = sorted({x for x in (*f.kinks, *f.inflections) if abs(x) < k})
    points = [-k]
    for low, high in pairwise([-k, *inside, k]):
        first, last = np.nextafter(low, high), np.nextafter(high, low)
        slopes = f.derivative(np.array([first, last]))
        if slopes[0] * slopes[1] < 0:
            points.append(
                float(brentq(lambda x: float(f.derivative(np.array(x))), first, last))
            )
        points.append(high)
    return float(np.abs(np.diff(f(np.array(points)))).sum())

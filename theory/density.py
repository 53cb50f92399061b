r"""Node M-Loss where the base pre-activation has any density p, not the uniform one.

The gap of a ReLU shifted by t has int E[D | x] dx = V/2, concentrated at x = t as the
errors shrink. f is a straight line plus int relu(x - t) df'(t), so

    E[D] ~ V/2 int p |df'|,        E[D] <= V/2 TV(f') sup p.

With p = 1/(2k) on (-k, k) this is the total-variation law. docs/law.md, section 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from theory.activations import Activation, Array, Elementwise
from theory.analysis import resolve
from theory.law import error_law, positive
from theory.panels import panel_rule
from theory.signed import phi
from theory.variation import total_variation

_PANELS = 48  # over the reach of f, as in `theory.smooth`
_BENDS = np.array([-8.5, -6.0, -4.0, -2.5, -1.0, 0.0, 1.0, 2.5, 4.0, 6.0, 8.5])
_DECAY = np.array([0.0, 1.0, 3.0, 6.0, 10.0, 16.0, 25.0, 40.0])  # of exp
_ROUNDING = 1e-9  # of weights that should sum to 1
_WIDENING = 1.5  # of the standard deviation in one panel of variances


@dataclass(frozen=True)
class Density:
    """A density of x: its values, a number it never exceeds, and where it bends.

    `function` maps float64 arrays elementwise. Between neighbouring `breaks` a
    polynomial of degree 15 has it to rounding; outside them it may be dropped.
    """

    function: Elementwise
    peak: float
    breaks: tuple[float, ...]

    def __call__(self, x: Array) -> Array:
        """The density at x."""
        return self.function(x)


def normal_density(mean: float, deviation: float) -> Density:
    """Density of N(mean, deviation^2); ValueError unless deviation > 0."""
    scale = float(positive("deviation", deviation))
    return Density(
        function=lambda x: phi((x - mean) / scale) / scale,
        peak=float(phi(np.zeros(())) / scale),
        breaks=tuple(mean + scale * _BENDS),
    )


def laplace_density(mean: float, scale: float) -> Density:
    """Density exp(-|x - mean| / scale) / (2 scale); ValueError unless scale > 0."""
    width = float(positive("scale", scale))
    return Density(
        function=lambda x: np.exp(-np.abs(x - mean) / width) / (2 * width),
        peak=1 / (2 * width),
        breaks=tuple(mean + width * np.concatenate([-_DECAY[:0:-1], _DECAY])),
    )


def histogram_density(sample: ArrayLike, edges: ArrayLike) -> Density:
    """The histogram of a sample over increasing `edges` [bin + 1], zero outside.

    The share of the sample that lies outside the edges is left out. Raises
    ValueError for a sample that is empty or not finite, or edges out of order.
    """
    x = np.asarray(sample, dtype=np.float64).ravel()
    ends = np.asarray(edges, dtype=np.float64)
    if x.size == 0 or not np.isfinite(x).all():
        raise ValueError("sample must be finite and have a value")
    if ends.ndim != 1 or ends.size < 2 or not (np.diff(ends) > 0).all():
        raise ValueError(f"edges must be one increasing row, got {ends.tolist()}")
    heights = np.histogram(x, ends)[0] / (x.size * np.diff(ends))
    padded = np.array([0.0, *heights, 0.0])
    return Density(
        function=lambda t: padded[np.searchsorted(ends, t, side="right")],
        peak=float(heights.max()),
        breaks=tuple(ends.tolist()),
    )


def mixture_density(parts: Sequence[Density], weights: ArrayLike) -> Density:
    """sum_j weights_j parts_j; ValueError unless the weights are >= 0 and sum to 1."""
    shares = np.asarray(weights, dtype=np.float64)
    if shares.shape != (len(parts),) or not (shares >= 0).all():
        raise ValueError(
            f"weights must be >= 0, one for each of {len(parts)} parts, got {weights!r}"
        )
    if not abs(shares.sum() - 1) <= _ROUNDING:
        raise ValueError(f"weights must sum to 1, got {weights!r}")

    def function(x: Array) -> Array:
        terms = [w * part(x) for w, part in zip(shares, parts, strict=True)]
        total: Array = np.sum(terms, axis=0)
        return total

    return Density(
        function=function,
        peak=float(shares @ [part.peak for part in parts]),
        breaks=tuple(sorted({b for part in parts for b in part.breaks})),
    )


def density_law(
    activation: str | Activation | Elementwise,
    density: Density,
    *,
    jensen_variance: ArrayLike,
) -> Array:
    r"""V/2 int p |df'|, what E[D] tends to as the errors shrink, kinks included.

    V, the Jensen variance of the errors, in squared units of x; one value for each.
    Holds for every q, weights and covariance, where p is continuous on the bends of
    f. Raises ValueError for a V that is not finite and >= 0, and for a density that
    is not finite and >= 0 on the reach of f.
    """
    f = resolve(activation)
    return _variances(jensen_variance) / 2 * _mean_bend(f, density)


def density_bound(
    activation: str | Activation | Elementwise,
    density: Density,
    *,
    jensen_variance: ArrayLike,
) -> Array:
    """V/2 TV(f') sup p, which E[D] never exceeds. Raises as `density_law` does."""
    variation = total_variation(resolve(activation))
    return _variances(jensen_variance) / 2 * variation * density.peak


def gaussian_base_mloss(
    activation: str | Activation | Elementwise,
    *,
    mean: float,
    deviation: float,
    sigma: float,
    q: int = 2,
    weights: ArrayLike | None = None,
    cov: ArrayLike | None = None,
) -> float:
    r"""E[D] for x ~ N(mean, deviation^2) and a convex or concave f, exactly.

    1/2 sum_i w_i int_{v_m}^{v_i} int p_v |df'| dv, with p_v the density of x widened
    by the variance v: each source adds to the law what the widened density gives it.
    Errors as in `expected_mloss`, which this raises like; ValueError where f bends
    both ways.
    """
    f = resolve(activation)
    if not f.bends_one_way():
        raise ValueError(
            f"activation {f.name!r} bends both ways; this form is for convex or concave"
        )
    base = float(positive("deviation", deviation)) ** 2
    unit = float(positive("sigma", sigma)) ** 2
    law = error_law(q, weights, cov)
    start = np.sqrt(base + unit * law.merged_variance)
    total = 0.0
    for weight, variance in zip(law.weights, law.source_variances, strict=True):
        stop = np.sqrt(base + unit * variance)
        total += weight * _widened_mean(f, mean, start, stop) / 2
    return total


def _widened_mean(f: Activation, mean: float, start: float, stop: float) -> float:
    """int int N(mean, v) |df'| dv from v = start^2 to stop^2, over deviations."""
    panels = int(np.ceil(abs(np.log(stop / start)) / np.log(_WIDENING)))
    low, high = min(start, stop), max(start, stop)
    nodes, measure = panel_rule(np.geomspace(low, high, panels + 1))
    means = [_mean_bend(f, normal_density(mean, float(node))) for node in nodes]
    size = float(2 * nodes * measure @ means) if panels else 0.0
    return size if stop > start else -size


def _mean_bend(f: Activation, density: Density) -> float:
    """int p |df'|: over the curved part of f, and at each kink."""
    low, high = f.reach
    own = [*np.linspace(low, high, _PANELS + 1), *f.kinks, *f.inflections]
    edges = np.clip(np.array([*own, *density.breaks]), low, high)
    t, measure = panel_rule(edges)
    kinks, jumps = np.array(f.kinks), np.abs(f.jumps)
    smooth = np.abs(f.curvature(t)) * measure
    return float(_checked(density, t) @ smooth + _checked(density, kinks) @ jumps)


def _checked(density: Density, x: Array) -> Array:
    values = density(x)
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        raise ValueError(
            f"density must be finite and >= 0, got {values[bad][0]} at {x[bad][0]}"
        )
    return values


def _variances(jensen_variance: ArrayLike) -> Array:
    values = np.asarray(jensen_variance, dtype=np.float64)
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        raise ValueError(
            f"jensen_variance must be finite and >= 0, got {values[bad].flat[0]}"
        )
    return values

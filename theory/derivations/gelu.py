"""GELU: its signed expectation, where it bends, and its small-sigma constant."""

import sympy as sp  # type: ignore[import-untyped]  # sympy ships no types

from theory.derivations.normal import Density, Distribution
from theory.derivations.relu import gaussian_mean as relu_mean
from theory.derivations.step import Derivation, Differentiates, Expands, Step

_x, _z, _d = sp.symbols("x z d", real=True)
_k, _v, _t, _T, _p = sp.symbols("k v t T p", positive=True)
_ROOT = sp.sqrt(2)


def _gelu(x: sp.Expr) -> sp.Expr:
    return x * Distribution(x)


def _slope(x: sp.Expr) -> sp.Expr:
    return Distribution(x) + x * Density(x)


def _curvature(x: sp.Expr) -> sp.Expr:
    return Density(x) * (2 - x**2)


def _mean(x: sp.Expr, T: sp.Expr) -> sp.Expr:
    """E gelu(x + sqrt(v) Z) with T = 1 + v."""
    t = sp.sqrt(T)
    return x * Distribution(x / t) + (T - 1) * Density(x / t) / t


def kernel(k: sp.Expr, T: sp.Expr) -> sp.Expr:
    """K: the rise of the mean's slope from -k to k."""
    hump = 2 * k * Density(k / sp.sqrt(T)) / sp.sqrt(T) ** 3
    return sp.erf(k / sp.sqrt(2 * T)) + hump


def _primitive(k: sp.Expr, T: sp.Expr) -> sp.Expr:
    z = k / sp.sqrt(T)
    grown = (T + k**2 - 2) * sp.erf(z / sp.sqrt(2))
    return grown + 2 * k * sp.sqrt(T) * Density(z)


def _mean_steps() -> tuple[Step, ...]:
    return (
        Step(
            "A ReLU smoothed by a unit Gaussian is GELU and the Gaussian's density:",
            sp.Integral((_x + _z) * Density(_z), (_z, -_x, sp.oo)),
            _gelu(_x) + Density(_x),
        ),
        Step(
            "The density itself, smoothed by variance v, is again one:",
            sp.Integral(
                Density(_x + sp.sqrt(_v) * _z) * Density(_z), (_z, -sp.oo, sp.oo)
            ),
            Density(_x / sp.sqrt(1 + _v)) / sp.sqrt(1 + _v),
        ),
        Step(
            "Smoothings add their variances, so with T = 1 + v the Gaussian mean of "
            "GELU is ReLU's mean at T less that density:",
            relu_mean(_x, _T) - Density(_x / sp.sqrt(_T)) / sp.sqrt(_T),
            _mean(_x, _T),
        ),
        Step(
            "It obeys the heat equation:",
            sp.Derivative(_mean(_x, _T), _T),
            sp.Derivative(_mean(_x, _T), (_x, 2)) / 2,
        ),
        Step(
            "Averaged over x in (-k, k), the mean therefore grows in the variance at "
            "the rate K / (4k), where K is the rise of its slope from -k to k:",
            sp.Integral(sp.diff(_mean(_x, _T), _x, 2), (_x, -_k, _k)),
            kernel(_k, _T),
            Differentiates(_k, 0),
        ),
        Step(
            "and a source of variance v against a merged node of variance u adds, but "
            "for the factor 1 / (4k), the following with T = 1 + v and p = 1 + u:",
            sp.Integral(kernel(_k, _t), (_t, _p, _T)),
            _primitive(_k, _T) - _primitive(_k, _p),
            Differentiates(_T, _p),
        ),
    )


def _bend_steps() -> tuple[Step, ...]:
    rise = _slope(_ROOT) - _slope(-_ROOT)
    overshoot = _slope(_ROOT) - 1
    return (
        Step(
            "GELU bends up between -sqrt 2 and sqrt 2 and down beyond:",
            sp.Derivative(_gelu(_x), (_x, 2)),
            _curvature(_x),
        ),
        Step("The slope starts from", sp.Limit(_slope(_x), _x, -sp.oo), sp.Integer(0)),
        Step("and ends at", sp.Limit(_slope(_x), _x, sp.oo), sp.Integer(1)),
        Step(
            "so its path down, up and down again has the length TV:",
            -_slope(-_ROOT) + rise + overshoot,
            4 * _slope(_ROOT) - 3,
        ),
        Step(
            "For small errors, with h = m + d and m - d, the gap is half the curvature "
            "times d^2, the next term being of order d^4:",
            (_gelu(_x + _d) + _gelu(_x - _d)) / 2 - _gelu(_x),
            _curvature(_x) * _d**2 / 2,
            Expands(_d, 3),
        ),
        Step(
            "For k beyond the bends the total curvature within (-k, k) is",
            sp.Integral(_curvature(_x), (_x, -_ROOT, _ROOT))
            - 2 * sp.Integral(_curvature(_x), (_x, _ROOT, _k)),
            4 * _slope(_ROOT) - 1 - 2 * _slope(_k),
            Differentiates(_k, _ROOT),
        ),
    )


def derivation() -> Derivation:
    """The signed expected gap of GELU in closed form, and lim k E[D] / sigma^2."""
    return Derivation(
        name="gelu",
        title="Expected M-Loss of GELU",
        steps=_mean_steps() + _bend_steps(),
        conclusion=(
            "the signed expectation is the weighted sum over the sources of the "
            "integral in step 6, divided by 4k. D has an absolute value that GELU, "
            "unlike ReLU, does need: the gap is negative beyond its root near sqrt 2, "
            "and the rest is one quadrature (docs/theory.md, section 4). As sigma goes "
            "to 0, E[D given x] goes to |f''(x)| sigma^2 / 4, because d has variance "
            "sigma^2 / 2, and k E[D] / sigma^2 to an eighth of the total curvature "
            "within (-k, k). As the slope at k is above 1, that is below TV / 8 = "
            "0.18945 for every such k, and goes to it as k grows; the printed constant "
            "is 0.25."
        ),
    )

"""ReLU: E[D] exactly, and how far the large-k value V / (4k) is from it."""

import sympy as sp  # type: ignore[import-untyped]  # sympy ships no types

from theory.derivations.normal import Density, Distribution
from theory.derivations.step import (
    Derivation,
    Differentiates,
    IsNonNegative,
    Step,
)

_x, _z = sp.symbols("x z", real=True)
_k, _sigma, _t, _u, _v, _y = sp.symbols("k sigma t u v y", positive=True)


def gaussian_mean(x: sp.Expr, variance: sp.Expr) -> sp.Expr:
    """E relu(x + s Z) = x Phi(x/s) + s phi(x/s), s^2 the variance."""
    s = sp.sqrt(variance)
    return x * Distribution(x / s) + s * Density(x / s)


def average(k: sp.Expr, variance: sp.Expr) -> sp.Expr:
    """G(k, v): the Gaussian mean averaged over x in (-k, k)."""
    s = sp.sqrt(variance)
    inside = (k**2 + variance) / 2 * sp.erf(k / (s * sp.sqrt(2)))
    return (inside + k * s * Density(k / s)) / (2 * k)


def outside(k: sp.Expr, variance: sp.Expr) -> sp.Expr:
    """erfc(k / sqrt(2v)): the chance that the error alone exceeds k."""
    return sp.erfc(k / sp.sqrt(2 * variance))


def _primitive(k: sp.Expr, variance: sp.Expr) -> sp.Expr:
    """The integral of `outside` over the variance, from 0."""
    s = sp.sqrt(variance)
    return (variance + k**2) * outside(k, variance) - 2 * k * s * Density(k / s)


def _mean_steps() -> tuple[Step, ...]:
    g = gaussian_mean(_x, _v)
    s = sp.sqrt(_v)
    return (
        Step(
            "A source sees h = x + e with e ~ N(0, v). Its Gaussian mean is written g; "
            "ReLU keeps the part above the kink, which starts at z = -x / sqrt(v):",
            sp.Integral((_x + s * _z) * Density(_z), (_z, -_x / s, sp.oo)),
            g,
        ),
        Step(
            "Its slope in x is the chance of being above the kink:",
            sp.Derivative(g, _x),
            Distribution(_x / s),
        ),
        Step(
            "Averaging over x uniform on (-k, k) gives 2k G(k, v) when the factor "
            "1/(2k) is left out:",
            sp.Integral(g, (_x, -_k, _k)),
            2 * _k * average(_k, _v),
            Differentiates(_k, 0),
        ),
        Step(
            "As a function of the variance, G grows at the rate",
            sp.Derivative(average(_k, _v), _v),
            sp.erf(_k / sp.sqrt(2 * _v)) / (4 * _k),
        ),
        Step(
            "ReLU is convex, so D needs no absolute value: E[D] is the weighted sum "
            "over the sources of G(k, v) - G(k, u), with v the variance of the source "
            "and u that of the merged node. With erf = 1 - erfc, each term is",
            average(_k, _v) - average(_k, _u),
            (_v - _u) / (4 * _k)
            - sp.Integral(outside(_k, _t), (_t, _u, _v)) / (4 * _k),
            Differentiates(_v, _u),
        ),
    )


def _remainder_steps() -> tuple[Step, ...]:
    rate = sp.diff(outside(_k, _t), _t)
    between = sp.Integral(outside(_k, _t), (_t, _u, _v))
    return (
        Step(
            "The weighted sum of v - u is the Jensen variance V, so the first part is "
            "V / (4k). The second is the exact remainder R = V / (4k) - E[D], and it "
            "is elementary:",
            between,
            _primitive(_k, _v) - _primitive(_k, _u),
            Differentiates(_v, _u),
        ),
        Step("Its integrand grows with the variance:", rate, 0, IsNonNegative()),
        Step(
            "so that its tangent at u bounds the integral from below, whichever of u "
            "and v is larger: the right side has a positive integrand for u < v, and "
            "both signs turn for v < u.",
            between - (_v - _u) * outside(_k, _u),
            sp.Integral((_v - _t) * rate, (_t, _u, _v)),
            Differentiates(_v, _u),
        ),
        Step(
            "and its tangent at v bounds the integral from above, for the same reason:",
            (_v - _u) * outside(_k, _v) - between,
            sp.Integral((_t - _u) * rate, (_t, _u, _v)),
            Differentiates(_v, _u),
        ),
        Step(
            "Finally erfc(y) <= exp(-y^2) for y > 0, the integrand being positive:",
            sp.exp(-(_y**2)) - sp.erfc(_y),
            2
            / sp.sqrt(sp.pi)
            * sp.exp(-(_y**2))
            * sp.Integral(
                (1 - sp.exp(-2 * _y * _t)) * sp.exp(-(_t**2)), (_t, 0, sp.oo)
            ),
        ),
    )


def _paper_steps() -> tuple[Step, ...]:
    exact = average(_k, _sigma**2) - average(_k, _sigma**2 / 2)
    return (
        Step(
            "The paper has two sources, equal weights and independent errors: "
            "v = sigma^2, u = sigma^2 / 2, V = sigma^2 / 2. Then",
            sp.Limit(_k * exact / _sigma**2, _k, sp.oo),
            sp.Rational(1, 8),
        ),
    )


def derivation() -> Derivation:
    """E[D] for ReLU, any law of the errors, with two-sided bounds on the remainder."""
    return Derivation(
        name="relu",
        title="Expected M-Loss of ReLU",
        steps=_mean_steps() + _remainder_steps() + _paper_steps(),
        conclusion=(
            "with weights w_i, source variances v_i and merged variance u, "
            "E[D] = sum_i w_i G(k, v_i) - G(k, u) = V / (4k) - R exactly, and "
            "V erfc(k / sqrt(2u)) <= 4k R <= sum_i w_i (v_i - u) erfc(k / sqrt(2v_i)). "
            "So R >= 0, and where all v_i are one v, R is at most V / (4k) "
            "exp(-k^2 / (2v)): the relative error of V / (4k) is exponentially small "
            "in (k / sigma)^2. For the paper, E[D] = sigma^2 / (8k) up to a "
            "relative error between erfc(k / sigma) and erfc(k / (sigma sqrt 2))."
        ),
    )

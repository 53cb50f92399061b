"""The total-variation law: any activation is an integral of ReLUs."""

import sympy as sp  # type: ignore[import-untyped]  # sympy ships no types

from theory.derivations.normal import Density
from theory.derivations.relu import gaussian_mean
from theory.derivations.step import (
    Derivation,
    Differentiates,
    IsNonNegative,
    Step,
)

_x, _t = sp.symbols("x t", real=True)
_v, _u = sp.symbols("v u", positive=True)
_f = sp.Function("f")


def derivation() -> Derivation:
    """E[D] <= TV(f') V / (4k), for every activation and every law of the errors."""
    rate = Density((_x - _t) / sp.sqrt(_v)) / (2 * sp.sqrt(_v))
    curvature = sp.diff(_f(_t), _t, 2)
    slope = sp.diff(_f(_t), _t).subs(_t, 0)
    return Derivation(
        name="total_variation",
        title="The total-variation law",
        steps=(
            Step(
                "Any twice differentiable f is a linear function plus ReLUs of kinks t "
                "and amounts f''(t) dt. For x > 0 the integrand is relu(x - t), for "
                "x < 0 it is relu(t - x), which differs from relu(x - t) by a linear "
                "function:",
                _f(_x) - _f(0) - slope * _x,
                sp.Integral((_x - _t) * curvature, (_t, 0, _x)),
                Differentiates(_x, 0, times=2),
            ),
            Step(
                "Linear functions have no gap. A ReLU with its kink at t, seen through "
                "errors of variance v, has a mean that grows with the variance:",
                sp.Derivative(gaussian_mean(_x - _t, _v), _v),
                rate,
            ),
            Step("the rate being nowhere negative,", rate, 0, IsNonNegative()),
            Step(
                "and over the whole line its integral is 1/2, whatever t and v:",
                sp.Integral(rate, (_x, -sp.oo, sp.oo)),
                sp.Rational(1, 2),
            ),
            Step(
                "A source of variance v against a merged node of variance u thus adds",
                sp.Integral(
                    gaussian_mean(_x - _t, _v) - gaussian_mean(_x - _t, _u),
                    (_x, -sp.oo, sp.oo),
                ),
                (_v - _u) / 2,
                Differentiates(_v, _u),
            ),
        ),
        conclusion=(
            "the weighted sum over the sources of v - u is the Jensen variance V, and "
            "E[D given x] of a shifted ReLU integrates over the line to V / 2; it is "
            "not negative, so its average over (-k, k) is at most V / (4k). By the "
            "triangle inequality over the representation, E[D] <= TV(f') V / (4k). A "
            "jump of f' is a ReLU of that amount, so kinks are included. Where x has "
            "a density p instead, 1/(2k) becomes max p: E[D] <= TV(f') V max(p) / 2."
        ),
    )

"""Leaky ReLU: linear in ReLU, hence |1 - a| times its D."""

import sympy as sp  # type: ignore[import-untyped]  # sympy ships no types

from theory.derivations.step import Derivation, Step

_x, _a, _b, _alpha = sp.symbols("x a b alpha", real=True)
_w = sp.Symbol("w", positive=True)


def _relu(x: sp.Expr) -> sp.Expr:
    return sp.Max(x, 0)


def _leaky(x: sp.Expr) -> sp.Expr:
    return sp.Max(x, 0) + _alpha * sp.Min(x, 0)


def _signed_gap(f: sp.Function) -> sp.Expr:
    return _w * f(_a) + (1 - _w) * f(_b) - f(_w * _a + (1 - _w) * _b)


def derivation() -> Derivation:
    """E[D_Leaky] = |1 - a| E[D_ReLU] for every k, sigma and law of the errors."""
    return Derivation(
        name="leaky_relu",
        title="Leaky ReLU against ReLU",
        steps=(
            Step(
                "With slope alpha below zero, Leaky ReLU is linear in ReLU:",
                _leaky(_x),
                _alpha * _x + (1 - _alpha) * _relu(_x),
            ),
            Step(
                "A linear function has no gap, so the gaps are proportional; here for "
                "two sources a and b of weights w and 1 - w, and likewise for more:",
                _signed_gap(_leaky),
                (1 - _alpha) * _signed_gap(_relu),
            ),
        ),
        conclusion=(
            "D for Leaky ReLU is |1 - alpha| times D for ReLU, sample by sample, so "
            "E[D] is too, at every k and sigma. The paper's factor 1 - alpha is right "
            "for alpha <= 1. For k >> sigma the value is |1 - alpha| sigma^2 / (8k)."
        ),
    )

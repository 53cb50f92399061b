"""Two layers: what the output gap holds besides M-Loss, solved exactly.

The output is B relu(h), with h the pre-activation of one hidden node and B its output
weight; h_i = x + e_i as in the paper, B_i = B_0 + n_i. In units of sigma,
y = x / sigma and z = k / sigma.
"""

import sympy as sp  # type: ignore[import-untyped]  # sympy ships no types

from theory.derivations.normal import Density, Distribution
from theory.derivations.step import Derivation, Differentiates, Step

_B1, _B2, _A1, _A2, _h1, _h2, _y, _s = sp.symbols(
    "B_1 B_2 A_1 A_2 h_1 h_2 y s", real=True
)
_w, _a, _b, _z = sp.symbols("w a b z", positive=True)


def relu_variance(z: sp.Expr) -> sp.Expr:
    """The mean over x in (-k, k) of Var(relu(x + e)) / sigma^2, at z = k / sigma."""
    inside = (
        z**3 / 3 * Distribution(z) * Distribution(-z)
        - (z**2 - 1) / 3 * Density(z) * sp.erf(z / sp.sqrt(2))
        - z / 3 * Density(z) ** 2
        - sp.erf(z) / (3 * sp.sqrt(sp.pi))
    )
    return sp.Rational(1, 2) + inside / z


def _relu(h: sp.Expr) -> sp.Expr:
    return sp.Max(h, 0, evaluate=False)


def _gap(h1: sp.Expr, h2: sp.Expr) -> sp.Expr:
    merged = (_B1 + _B2) / 2 * _relu((h1 + h2) / 2)
    return merged - (_B1 * _relu(h1) + _B2 * _relu(h2)) / 2


def _linear_steps() -> tuple[Step, ...]:
    B, A = (_w * p + (1 - _w) * q for p, q in ((_B1, _B2), (_A1, _A2)))
    ensemble = _w * _B1 * _A1 + (1 - _w) * _B2 * _A2
    return (
        Step(
            "A linear network of two layers has a gap, although it has no M-Loss: the "
            "covariance of its layers over the sources. For two of weights w, 1 - w:",
            B * A - ensemble,
            -_w * (1 - _w) * (_B1 - _B2) * (_A1 - _A2),
        ),
    )


def _relu_steps() -> tuple[Step, ...]:
    D = (_relu(_h1) + _relu(_h2)) / 2 - _relu((_h1 + _h2) / 2)
    interaction = (_B1 - _B2) * (_relu(_h1) - _relu(_h2)) / 4
    on, off = (_a + _b, -_b), (_a, -_a - _b)
    return (
        Step(
            "With a ReLU between the layers and equal weights, M-Loss D adds to it:",
            _gap(_h1, _h2),
            -(_B1 + _B2) / 2 * D - interaction,
        ),
        Step(
            "To second order about the merged weights, the gap is -(B_1 - B_2)(h_1 - "
            "h_2) / 4 where the merged node is on, 0 where it is off; exactly so "
            "where the sources agree in sign. If the node is on and source 2 is off, "
            "h_2 = -b, what is left is -B_2 D with D = b / 2:",
            _gap(*on) + (_B1 - _B2) * (on[0] - on[1]) / 4,
            -_B2 * _b / 2,
        ),
        Step(
            "and if it is off while source 1 is on, h_1 = a, it is -B_1 D, D = a / 2:",
            _gap(*off),
            -_B1 * _a / 2,
        ),
    )


def _moment_steps() -> tuple[Step, ...]:
    mean = _y * Distribution(_y) + Density(_y)
    square = (1 + _y**2) * Distribution(_y) + _y * Density(_y)
    spread = square - mean**2
    return (
        Step(
            "For the mean square, ReLU's second moment in units of sigma is",
            sp.Integral((_y + _s) ** 2 * Density(_s), (_s, -_y, sp.oo)),
            square,
        ),
        Step(
            "and its variance averages over x in (-k, k), times 2z, to",
            sp.Integral(spread, (_y, -_z, _z)),
            sp.expand(2 * _z * relu_variance(_z)),
            Differentiates(_z, 0),
        ),
    )


def derivation() -> Derivation:
    """The gap of B A x and of B relu(h), split into M-Loss and interaction."""
    return Derivation(
        name="two_layer",
        title="Two layers: M-Loss and the interaction between layers",
        steps=_linear_steps() + _relu_steps() + _moment_steps(),
        conclusion=(
            "let h_i = x + e_i with standard deviation sigma and B_i = B_0 + n_i with "
            "tau, all independent. B_1 + B_2 and B_1 - B_2 are independent, so "
            "E[gap] = -B_0 E[D] and E[gap^2] = (B_0^2 + tau^2 / 2) E[D^2] + tau^2 / 4 "
            "E[Var relu(h)]. For k >> sigma the second term, the interaction, is "
            "tau^2 sigma^2 / 8, and the first B_0^2 sigma^3 / (12 sqrt(pi) k). The "
            "remainder of the second-order term is -B_i D, of mean square "
            "(B_0^2 + tau^2) E[D^2]: all of ReLU's M-Loss, and only that, is in it."
        ),
    )

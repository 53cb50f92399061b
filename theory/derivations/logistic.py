"""Softplus, SiLU and tanh: what is exact, and what has no closed form."""

import sympy as sp  # type: ignore[import-untyped]  # sympy ships no types

from theory.derivations.normal import Density
from theory.derivations.step import Derivation, Expands, Step

_x, _z, _d = sp.symbols("x z d", real=True)
_s = sp.Symbol("s", positive=True)


def _sigmoid(x: sp.Expr) -> sp.Expr:
    return 1 / (1 + sp.exp(-x))


def _reductions() -> tuple[Step, ...]:
    S = sp.Function("S")
    at = _x + _s * _z
    slope = sp.diff(S(_x), _x).subs(_x, at)
    return (
        Step(
            "All three are built from the sigmoid S. The slope of softplus is S:",
            sp.Derivative(sp.log(1 + sp.exp(_x)), _x),
            _sigmoid(_x),
        ),
        Step("tanh is S stretched:", sp.tanh(_x), 2 * _sigmoid(2 * _x) - 1),
        Step(
            "and SiLU is x S(x), whose Gaussian mean follows from that of S: the "
            "following is a total derivative in z and integrates to zero, so that "
            "E[silu(x + s Z)] = x L + s^2 dL/dx with L(x, s) = E S(x + s Z).",
            (at * S(at) - _x * S(at) - _s**2 * slope) * Density(_z),
            sp.diff(-_s * S(at) * Density(_z), _z),
        ),
    )


def _facts() -> tuple[Step, ...]:
    return (
        Step(
            "L is the logistic-normal integral, for which no closed form is known. By "
            "the symmetry of S it is exactly 1/2 at x = 0,",
            _sigmoid(_x) + _sigmoid(-_x),
            sp.Integer(1),
        ),
        Step(
            "and for small s the heat equation gives it in even powers of s, from the "
            "Taylor terms of S(x + d) with E d^2 = s^2. For tanh at x, say,",
            (sp.tanh(_x + _d) + sp.tanh(_x - _d)) / 2,
            sp.tanh(_x) - sp.tanh(_x) * (1 - sp.tanh(_x) ** 2) * _d**2,
            Expands(_d, 3),
        ),
        Step(
            "The total variation needs no such integral. Softplus bends up only:",
            sp.Integral(_sigmoid(_x) * _sigmoid(-_x), (_x, -sp.oo, sp.oo)),
            sp.Integer(1),
        ),
        Step(
            "tanh bends up, then down, each time by 1:",
            -sp.Integral(sp.diff(sp.tanh(_x), _x, 2), (_x, 0, sp.oo)),
            sp.Integer(1),
        ),
        Step(
            "and SiLU turns where its curvature vanishes, at x tanh(x/2) = 2:",
            sp.Derivative(_x * _sigmoid(_x), (_x, 2)),
            _sigmoid(_x) * _sigmoid(-_x) * (2 - _x * sp.tanh(_x / 2)),
        ),
    )


def derivation() -> Derivation:
    """The reductions to one integral, and the statement that it stays an integral."""
    return Derivation(
        name="logistic",
        title="Softplus, SiLU and tanh: no closed form",
        steps=_reductions() + _facts(),
        conclusion=(
            "the Gaussian means of softplus, SiLU and tanh come down to one integral "
            "that is computed, not written out; none of the three has an exact E[D] "
            "here by formula. What is exact is the law E[D] <= TV V / (4k) "
            "(derivation total_variation) with TV = 1 for softplus, 2 for tanh and "
            "1.3994 for SiLU, an equality in the limit of small errors and large k."
        ),
    )

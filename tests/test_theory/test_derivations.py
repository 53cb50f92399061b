"""Every derivation verifies, no step holds by accident, and the code computes them."""

from dataclasses import replace

import mpmath as mp
import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from numpy.testing import assert_allclose
from strategies import error_laws, ratios

from theory import expected_mloss
from theory.derivations import (
    DERIVATIONS,
    Derivation,
    DerivationError,
    Step,
    gelu,
    relu,
    relu_distribution,
    two_layer,
)
from theory.derivations.normal import Density, Distribution
from theory.derivations.step import Differentiates, Expands, IsNonNegative
from theory.distribution import mloss_second_moment
from theory.gelu import GELU_KERNEL
from theory.two_layer import relu_variance

X = sp.Symbol("x", real=True)
EQUATIONS = [
    pytest.param(step, id=f"{name}-{number}")
    for name, derivation in DERIVATIONS.items()
    for number, step in enumerate(derivation().steps, 1)
    if not isinstance(step.check, IsNonNegative)
]


@pytest.mark.parametrize("name", DERIVATIONS)
def test_every_step_is_verified(name):
    derivation = DERIVATIONS[name]()
    assert derivation.name == name
    derivation.verify()


@pytest.mark.parametrize("step", EQUATIONS)
def test_no_step_says_the_same_twice(step):
    assert step.left != step.right


@pytest.mark.parametrize("step", EQUATIONS)
def test_no_step_survives_a_changed_right_side(step):
    assert not replace(step, right=step.right + 1).holds()


def test_a_failed_step_is_named():
    wrong = Step("The slope of x^2 is x:", sp.Derivative(X**2, X), X)
    derivation = Derivation("square", "A square", (wrong,), "nothing.")
    with pytest.raises(DerivationError, match=r"square, step 1 .*slope of x\^2"):
        derivation.verify()


@pytest.mark.parametrize(
    "check", [Differentiates(X, 0), Differentiates(X, 0, times=2), Expands(X, 3)]
)
def test_a_check_sees_the_function_and_its_value(check):
    assert Step("", sp.sin(X) ** 2, 1 - sp.cos(X) ** 2, Differentiates(X, 0)).holds()
    assert not Step("", sp.sin(X), X + X**2, check).holds()
    assert not Step("", sp.sin(X), sp.sin(X) + 1, check).holds()


def test_second_derivatives_need_the_first_to_agree():
    assert not Step("", sp.exp(X), 1 + sp.Integer(0) * X, Differentiates(X, 0)).holds()
    twice = Differentiates(X, 0, times=2)
    assert not Step("", sp.cos(X), sp.cos(X) + X, twice).holds()


def test_agreement_at_infinity_is_a_limit():
    k = sp.Symbol("k", positive=True)
    check = Differentiates(k, sp.oo)
    assert Step("", sp.erfc(k), 1 - sp.erf(k), check).holds()
    assert not Step("", sp.erfc(k), -sp.erf(k), check).holds()


def test_a_sign_that_sympy_does_not_know_is_not_claimed():
    assert Step("", Density(X), 0, IsNonNegative()).holds()
    assert not Step("", -Density(X), 0, IsNonNegative()).holds()
    assert not Step("", X, 0, IsNonNegative()).holds()


def test_taylor_expansion_to_its_order():
    assert Step("", sp.cos(X), 1 - X**2 / 2, Expands(X, 3)).holds()
    assert not Step("", sp.cos(X), 1 - X**2 / 2, Expands(X, 4)).holds()


def test_normal_functions_differentiate_and_rewrite_as_such():
    assert Distribution(X).diff(X) == Density(X)
    assert Density(2 * X).diff(X) == -4 * X * Density(2 * X)
    assert sp.N(Distribution(1).rewrite(sp.erf)) == sp.N(
        Distribution(1).rewrite(sp.erfc)
    )
    assert sp.integrate(Density(X).rewrite(sp.erf), (X, -sp.oo, sp.oo)) == 1


@pytest.mark.parametrize("name", DERIVATIONS)
def test_text_and_latex_hold_every_step(name):
    derivation = DERIVATIONS[name]()
    text, latex = " ".join(derivation.text().split()), derivation.latex()
    assert all(" ".join(step.says.split()) in text for step in derivation.steps)
    assert latex.count("\\[\n") == latex.count("\n\\]") == len(derivation.steps)
    assert latex.count(r"\item") == len(derivation.steps)
    assert r"\varphi" in Derivation("", "", (Step("", Density(X) ** 2, X),), "").latex()


def number(expression, **values):
    """The expression at float values, to 40 digits, rounded once."""
    at = {sp.Symbol(name, positive=True): sp.Float(v, 40) for name, v in values.items()}
    return float(expression.rewrite(sp.erf).subs(at).evalf(30))


K, V = sp.symbols("k v", positive=True)


@pytest.mark.parametrize("ratio", [0.2, 1.0, 4.0, 1e4])
def test_the_package_computes_what_is_derived(ratio):
    exact = relu.average(K, sp.Integer(1)) - relu.average(K, sp.Rational(1, 2))
    assert_allclose(expected_mloss("relu", ratio, 1.0), number(exact, k=ratio), 1e-12)
    square = number(relu_distribution.second_moment(K), k=ratio)
    assert_allclose(mloss_second_moment("relu", ratio, 1.0), square, 1e-13)
    spread = number(two_layer.relu_variance(K), k=ratio)
    assert_allclose(relu_variance(ratio, 1.0), spread, 1e-13)


@pytest.mark.parametrize(("k", "t"), [(0.3, 1.5), (2.0, 1.1), (9.0, 4.0)])
def test_the_gelu_kernel_is_the_derived_one(k, t):
    found = GELU_KERNEL.value(np.float64(k), np.float64(t))
    assert_allclose(found, number(gelu.kernel(K, V), k=k, v=t), 1e-14)


@given(law=error_laws(), ratio=ratios)
def test_the_remainder_of_relu_lies_between_its_bounds(law, ratio):
    weights, cov = law
    with mp.workdps(40):
        w = [mp.mpf(float(value)) for value in weights]
        w = [value / mp.fsum(w) for value in w]
        c = mp.matrix(np.asarray(cov).tolist())
        rows = range(len(w))
        u = mp.fsum(w[i] * c[i, j] * w[j] for i in rows for j in rows)

        def outside(v):
            return mp.erfc(ratio / mp.sqrt(2 * v)) if v > 0 else mp.mpf(0)

        def primitive(v):
            if v <= 0:
                return mp.mpf(0)
            s = mp.sqrt(v)
            return (v + ratio**2) * outside(v) - 2 * ratio * s * mp.npdf(ratio / s)

        rest = mp.fsum(w[i] * (primitive(c[i, i]) - primitive(u)) for i in rows)
        spread = mp.fsum(w[i] * c[i, i] for i in rows) - u
        lower = spread * outside(u)
        upper = mp.fsum(w[i] * (c[i, i] - u) * outside(c[i, i]) for i in rows)
        # 40 digits, less what cancels between terms of size ratio^2.
        rounding = mp.mpf(10) ** -36 * (1 + ratio**2) * max(1, float(np.abs(cov).max()))
        assert lower - rounding <= rest <= upper + rounding
        assert rest >= -rounding

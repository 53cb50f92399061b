"""Verdicts on Section 4 follow from the numbers: break one and they turn."""

import numpy as np
import pytest

import theory
from paper_checks import symbolic, two_routes
from paper_checks.claims import CLAIMS, approximations, consequences, readings
from paper_checks.record import Verdict

USERS = (approximations, consequences, readings, two_routes)
EXPECTED = (
    "expected-relu",
    "expected-relu-k-inside-root",
    "expected-leaky-relu",
    "expected-leaky-relu-k-inside-root",
    "expected-gelu",
)
CONSEQUENCES = (
    "leaky-relu-ratio",
    "activation-ranking",
    "smaller-for-larger-k",
    "smaller-for-smaller-sigma",
    "small-for-k-above-sigma",
    "printed-values-are-upper-bounds",
    "alternative-readings",
)


def examine(name):
    (claim,) = CLAIMS.select([name])
    return claim.examine(seed=0)


def replace_in_claims(monkeypatch, name, function):
    for module in USERS:
        if hasattr(module, name):
            monkeypatch.setattr(module, name, function)


@pytest.mark.parametrize("name", EXPECTED + CONSEQUENCES)
def test_a_healthy_run_gives_the_recorded_verdict(name):
    assert examine(name).as_recorded


@pytest.mark.parametrize("name", EXPECTED)
def test_a_wrong_constant_in_theory_turns_the_verdict(monkeypatch, name):
    # The sharpest simulated cell resolves 0.3 % of the value or less.
    def wrong(*arguments, **options):
        return 1.03 * theory.expected_mloss(*arguments, **options)

    replace_in_claims(monkeypatch, "expected_mloss", wrong)
    checked = examine(name)
    assert not checked.as_recorded
    assert checked.finding.verdict == Verdict.NOT_CHECKABLE
    assert checked.finding.reason


def test_a_wrong_total_variation_turns_the_verdict(monkeypatch):
    replace_in_claims(monkeypatch, "total_variation", lambda _: 1.52)
    assert not examine("expected-gelu").as_recorded


def test_a_wrong_bound_turns_the_verdict(monkeypatch):
    def half(*arguments):
        return theory.mloss_bound(*arguments) / 2

    replace_in_claims(monkeypatch, "mloss_bound", half)
    assert examine("small-for-k-above-sigma").finding.verdict == Verdict.REFUTED


@pytest.mark.parametrize(
    ("name", "constant"),
    [("expected-relu", 0.125), ("expected-leaky-relu", 0.125 * 0.75)],
)
def test_a_right_formula_would_be_confirmed(monkeypatch, name, constant):
    def right(_, k, sigma, **__):
        return constant * np.asarray(sigma) ** 2 / k

    monkeypatch.setattr(approximations, "paper_approximation", right)
    monkeypatch.setitem(approximations.AT_ONE, name[9:].replace("-", "_"), constant)
    # Exactly right, it cannot be told from the exact value by any simulation.
    monkeypatch.setattr(two_routes.Agreement, "doubt", lambda *_: "")
    assert examine(name).finding.verdict == Verdict.CONFIRMED


@pytest.mark.parametrize("name", EXPECTED)
def test_a_misprinted_formula_is_not_judged(monkeypatch, name):
    def misprinted(*arguments, **options):
        return 1.001 * theory.paper_approximation(*arguments, **options)

    monkeypatch.setattr(approximations, "paper_approximation", misprinted)
    checked = examine(name)
    assert checked.finding.verdict == Verdict.NOT_CHECKABLE
    assert "where the paper has" in checked.finding.reason


def test_a_ratio_that_depends_on_the_slope_is_refuted(monkeypatch):
    def wrong(f, k, sigma, **_):
        skew = 1 + getattr(f, "negative_slope", 0) / 100
        return skew * theory.expected_mloss(f, k, sigma)

    monkeypatch.setattr(consequences, "expected_mloss", wrong)
    assert examine("leaky-relu-ratio").finding.verdict == Verdict.REFUTED


def test_gelu_and_relu_cross_at_a_k_that_grows_with_sigma_over_k():
    numbers = examine("activation-ranking").finding.numbers
    low, high = numbers["crossing_k_min"], numbers["crossing_k_max"]
    for k, ratio in ((low, 10_000), (high, 2)):
        gelu, relu = (theory.expected_mloss(f, k, k / ratio) for f in ("gelu", "relu"))
        # brentq finds k to 1e-12, and the ratio's slope in k is of order 1.
        assert gelu / relu == pytest.approx(1, abs=1e-9)
    assert low < high


def test_a_noisy_simulation_settles_nothing():
    exact = np.array([1.0, 1.0])
    noisy = two_routes.Agreement(1.0, exact, exact, stderr=np.array([0.1, 0.1]))
    assert "resolves" in noisy.doubt(exact * 3)
    blunt = two_routes.Agreement(1.0, exact, exact, stderr=np.array([0.001, 0.1]))
    assert "cannot tell" in blunt.doubt(exact * 1.5)
    sharp = two_routes.Agreement(1.0, exact, exact, stderr=np.array([0.001, 0.01]))
    assert sharp.doubt(exact * 1.5) == ""


def test_a_formula_of_the_wrong_order_is_refuted_and_one_off_in_constant_corrected():
    k_sigma = approximations.SIGMAS[:, None] * approximations.FAR

    def verdict(excess):
        return approximations.Comparison("relu", "", excess).verdict

    ones = np.ones_like(k_sigma)
    assert verdict(ones * (1 + 5e-5)) == Verdict.CONFIRMED
    assert verdict(ones * 3.19) == Verdict.CORRECTED
    assert verdict(np.sqrt(k_sigma)) == Verdict.REFUTED


def test_derivations_agree_with_quadrature():
    # D = max(r - |m|, 0) / 2 with r half-normal of variance 1/2 and sigma = 1.
    r = np.linspace(0, 8, 200_001)
    density = 2 * np.exp(-(r**2)) / np.sqrt(np.pi)
    first = np.trapezoid(r**2 / 4 * density, r)
    second = np.trapezoid(r**3 / 12 * density, r)
    # Trapezoids of step h leave h^2/12 times the change of slope, below 1e-9 here.
    assert symbolic.relu_constant() == pytest.approx(first, abs=1e-9)
    assert symbolic.relu_rms_constant() == pytest.approx(np.sqrt(second), abs=1e-9)
    assert symbolic.leaky_relu_is_affine_in_relu()
    assert symbolic.gelu_total_variation() == pytest.approx(
        theory.total_variation("gelu"), rel=1e-14
    )


def test_no_reading_gives_both_constants_and_a_composite_gives_relu():
    tried = list(readings.readings())
    relu = [reading.words for reading in tried if reading.gives_relu()]
    assert relu == ["x ~ N(0, k^2); a, b mirrored about x; D = |2f(m) - f(a) - f(b)|"]
    assert not any(r.gives_relu() and r.gives_gelu() for r in tried)

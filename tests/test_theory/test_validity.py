"""The range of the total-variation law: found, predicted and documented."""

from math import erf, exp, pi, sqrt
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import ndtr

from theory.validity import excess, largest_sigma, predicted_sigma

DOCS = Path(__file__).parents[2] / "docs" / "law.md"


@pytest.mark.parametrize("name", ["relu", "gelu", "softplus"])
@pytest.mark.parametrize("within", [0.01, 0.3])
def test_the_law_is_off_by_the_fraction_at_the_largest_sigma(name, within):
    sigma = largest_sigma(name, 10.0, within=within)
    # log sigma is known to 1e-9, and the excess is at most of fourth order in it here.
    assert_allclose(excess(name, 10.0, sigma), within, rtol=1e-7)


def test_relu_asks_for_k_over_sigma_alone():
    small, large = (largest_sigma("relu", k, within=0.05) for k in (0.01, 300.0))
    assert_allclose(large / 300, small / 0.01, rtol=4e-9)


def test_relus_excess_in_closed_form():
    # V/(4k) over E relu(h_1) - E relu(m), with E relu the mean over x of s-smoothed.
    k, sigma = 2.0, 1.3

    def mean(s):
        z = k / s
        bell = exp(-(z**2) / 2) / sqrt(2 * pi)
        return ((k**2 + s**2) / 2 * erf(z / sqrt(2)) + k * s * bell) / (2 * k)

    gap = mean(sigma) - mean(sigma / sqrt(2))
    # The difference cancels half a digit.
    expected = sigma**2 / (8 * k) / gap - 1
    assert_allclose(excess("relu", k, sigma), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "gelu"])
def test_excess_grows_with_sigma(name):
    # Which is what makes the region one interval for each k.
    k, sigma = np.geomspace(0.5, 100, 12), np.geomspace(1e-2, 100, 60)
    table = excess(name, k, sigma[:, None])
    assert (table > -1e-10).all()
    assert (np.diff(table, axis=0) > -1e-10).all()


def test_excess_grows_with_sigma_for_slower_quadratures():
    sigma = np.geomspace(0.05, 20, 12)
    for name in ("silu", "tanh"):
        assert (np.diff(excess(name, 8.0, sigma)) > 0).all()


def test_no_sigma_serves_where_the_range_misses_the_bend():
    # GELU' has not arrived at -2 and 2: the law is 12.7 % off at best.
    assert largest_sigma("gelu", 2.0, within=0.1) == 0
    assert predicted_sigma("gelu", 2.0, within=0.1) == 0
    r = np.array([sqrt(2), 2.0])
    turn, end = ndtr(r) + r * np.exp(-(r**2) / 2) / sqrt(2 * pi)
    at_best = (4 * turn - 3) / (4 * turn - 2 * end - 1) - 1
    # The next order in sigma is of the size of sigma^2.
    assert_allclose(excess("gelu", 2.0, 1e-3), at_best, atol=1e-6)
    assert largest_sigma("gelu", 2.0, within=0.13) > 0


@pytest.mark.parametrize("k", [5.0, 50.0])
def test_the_prediction_is_exact_to_first_order_in_the_fraction(k):
    # Its relative error is linear in the fraction, so it halves with it.
    fractions = 0.01 / 2.0 ** np.arange(3)
    miss = [
        float(predicted_sigma("gelu", k, within=w)) / largest_sigma("gelu", k, within=w)
        - 1
        for w in fractions
    ]
    powers = -np.diff(np.log2(np.abs(miss)))
    change = abs(powers[1] - powers[0])
    assert change < 0.1
    assert abs(powers[1] - 1) <= change + 1e-4  # 1e-9 and 1e-10 against 0.004


def test_a_convex_function_on_a_wide_range_has_no_small_sigma_limit():
    # What decides there is erfc(k / sigma), which no power of sigma sees.
    assert predicted_sigma("softplus", 1000.0, within=0.01) == np.inf
    assert 400 < largest_sigma("softplus", 1000.0, within=0.01) < 500


def documented():
    """Rows of the table: name, k, then sigma for 1, 5 and 10 %."""
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    rows = [line.strip("| \n").split("|") for line in lines if "|" in line]
    for cells in rows:
        name, *numbers = (cell.strip() for cell in cells)
        if name in {"relu", "gelu", "quick_gelu", "silu", "tanh"}:
            yield pytest.param(name, *map(float, numbers), id=f"{name}-{numbers[0]}")


@pytest.mark.parametrize(("name", "k", "one", "five", "ten"), list(documented()))
def test_the_documented_range(name, k, one, five, ten):
    for percent, printed in ((1, one), (5, five), (10, ten)):
        level = percent / 100
        if printed == 0:
            assert excess(name, k, 1e-3 * min(1, k)) > level
            continue
        # Three digits are printed: the law is better below and worse above.
        rounding = 0.5 * 10 ** (np.floor(np.log10(printed)) - 2)
        assert excess(name, k, printed - rounding) <= level + 1e-9
        assert excess(name, k, printed + rounding) >= level - 1e-9


def test_the_documented_range_is_there():
    assert len(list(documented())) == 20


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: largest_sigma("gelu", 0.0, within=0.1), "k must be finite and > 0"),
        (lambda: largest_sigma("gelu", 1.0, within=0.0), "within must be finite"),
        (lambda: largest_sigma("identity", 1.0, within=0.1), "a straight line"),
        (lambda: predicted_sigma("relu", 1.0, within=0.1), "'relu' has kinks"),
        (lambda: excess("gelu", 1.0, -1.0), "sigma must be finite"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

"""The law of D against 25 digits, against samples of the definition and as a law."""

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from strategies import EPS, ratios, scales, slopes

from theory import LeakyReLU, expected_mloss
from theory.distribution import (
    mloss_cdf,
    mloss_second_moment,
    mloss_survival,
    mloss_variance,
    mloss_zero_probability,
)

RATIOS = [0.1, 0.7, 2.0, 5.0, 30.0, 1e3, 1e6]
thresholds = st.floats(0, 3)  # d / sigma


def reference_survival(ratio, c):
    """(2 sigma / k) int_0^{k/sigma} Phi(y - c) Phi(-y - c) dy at 25 digits.

    Scaled to order one, as mpmath's quadrature stops at an absolute error; the
    integrand dies out before y = 16.
    """
    with mp.workdps(25):
        scale, top = mp.exp(mp.mpf(c) ** 2), min(mp.mpf(ratio), mp.mpf(16))
        edges = [top * j / 8 for j in range(9)]
        area = mp.quad(lambda y: scale * mp.ncdf(y - c) * mp.ncdf(-y - c), edges)
        return float(2 * area / scale / mp.mpf(ratio))


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("c", [0, 0.3, 1, 4, 12])
def test_survival_keeps_its_digits_far_into_the_tail(ratio, c):
    expected = reference_survival(ratio, c)
    found = mloss_survival("relu", 0.3 * c / 2, k=0.3 * ratio, sigma=0.3)
    # Rounding c moves exp(-c^2) by c^2 eps; each Phi adds as much again.
    assert_allclose(found, expected, rtol=(64 + 8 * c**2) * EPS, atol=0)


@pytest.mark.parametrize("ratio", RATIOS)
def test_zero_probability(ratio):
    expected = 1 - reference_survival(ratio, 0)
    found = mloss_zero_probability("relu", 0.3 * ratio, 0.3)
    assert_allclose(found, expected, rtol=0, atol=16 * EPS)
    assert_allclose(1 - found, mloss_survival("relu", 0, k=ratio, sigma=1), atol=1e-14)


def test_limits_in_closed_form():
    k, sigma = np.array([1e8, 1e-8]), 1.0
    narrow, wide = sigma**3 / (12 * np.sqrt(np.pi) * 1e8), (1 - 2 / np.pi) / 8
    assert_allclose(mloss_second_moment("relu", k, sigma), [narrow, wide], rtol=1e-14)
    chances = [1 - 1 / (1e8 * np.sqrt(np.pi)), 0.5]
    assert_allclose(mloss_zero_probability("relu", k, sigma), chances, rtol=1e-15)


@pytest.mark.parametrize(("k", "sigma"), [(0.5, 1.0), (2.0, 0.7), (5.0, 0.5)])
def test_law_against_samples_of_the_definition(k, sigma):
    rng = np.random.default_rng(20250611)
    n = 1_000_000
    x = rng.uniform(-k, k, size=n)
    a, b = x + sigma * rng.normal(size=(2, n))  # each [n]
    D = np.abs(np.maximum((a + b) / 2, 0) - (np.maximum(a, 0) + np.maximum(b, 0)) / 2)

    def assert_mean(sample, claim, sharp):
        stderr = sample.std() / np.sqrt(n)
        assert stderr < sharp * claim, "too noisy to test"
        assert abs(sample.mean() - claim) < 5 * stderr

    assert_mean(D**2, mloss_second_moment("relu", k, sigma), 0.02)
    assert_mean((D - D.mean()) ** 2, mloss_variance("relu", k, sigma), 0.02)
    assert_mean(D == 0, mloss_zero_probability("relu", k, sigma), 0.02)
    for d in (0.1 * sigma, 0.4 * sigma):
        assert_mean(d < D, mloss_survival("relu", d, k=k, sigma=sigma), 0.02)


@pytest.mark.parametrize("ratio", RATIOS)
def test_moments_are_integrals_of_the_survival(ratio):
    # D is below 8 sigma but for exp(-256); ten Gauss rules of 20 nodes leave rounding.
    nodes, weights = np.polynomial.legendre.leggauss(20)
    d = (np.arange(10)[:, None] + (1 + nodes) / 2).ravel() * 0.8
    weights = np.tile(weights * 0.4, 10)
    chance = mloss_survival("relu", 0.3 * d, k=0.3 * ratio, sigma=0.3)
    mean = expected_mloss("relu", 0.3 * ratio, 0.3)
    assert_allclose(0.3 * weights @ chance, mean, rtol=256 * EPS)
    square = mloss_second_moment("relu", 0.3 * ratio, 0.3)
    assert_allclose(0.09 * weights @ (2 * d * chance), square, rtol=256 * EPS)
    variance = mloss_variance("relu", 0.3 * ratio, 0.3)
    assert_allclose(variance, square - mean**2, rtol=4 * EPS)


@given(ratio=ratios, low=thresholds, step=thresholds)
def test_cdf_is_a_distribution_function(ratio, low, step):
    low, high = mloss_cdf("relu", [low, low + step], k=ratio, sigma=1.0)
    assert 0 <= low <= high + 4 * EPS
    assert high <= 1
    at_zero = mloss_zero_probability("relu", ratio, 1.0)
    assert_allclose(mloss_cdf("relu", 0, k=ratio, sigma=1.0), at_zero, atol=1e-14)


def test_cdf_at_the_ends():
    ends = [-np.inf, -1e-300, np.inf]
    assert mloss_cdf("relu", ends, k=1.0, sigma=1.0).tolist() == [0, 0, 1]


@given(ratio=ratios, sigma=scales, d=thresholds, slope=slopes)
def test_leaky_relu_is_a_stretched_relu(ratio, sigma, d, slope):
    leaky, stretch = LeakyReLU(slope), abs(1 - slope)
    k = ratio * sigma
    square = stretch**2 * mloss_second_moment("relu", k, sigma)
    assert_allclose(mloss_second_moment(leaky, k, sigma), square, rtol=8 * EPS)
    if stretch:
        chance = mloss_survival("relu", d * sigma, k=k, sigma=sigma)
        found = mloss_survival(leaky, stretch * d * sigma, k=k, sigma=sigma)
        # Three roundings in c, each moving exp(-c^2) by c^2 eps; c = 2d.
        assert_allclose(found, chance, rtol=(8 + 64 * d**2) * EPS)


def test_identity_has_no_gap():
    assert mloss_zero_probability("identity", 2.0, 1.0) == 1
    assert mloss_cdf("identity", [-1.0, 0.0, 1.0], k=2.0, sigma=1.0).tolist() == [
        0,
        1,
        1,
    ]
    assert mloss_variance("identity", 2.0, 1.0) == 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"activation": "gelu"}, "gelu"),
        ({"d": np.nan}, "d must not be NaN"),
        ({"d": [1.0, 2.0, 3.0], "k": [1.0, 2.0]}, "d must broadcast"),
        ({"k": 0.0}, "k must be finite"),
        ({"sigma": -1.0}, "sigma must be finite"),
    ],
)
def test_bad_input_is_named(given, words):
    call = {"activation": "relu", "d": 1.0, "k": 1.0, "sigma": 1.0} | given
    with pytest.raises(ValueError, match=words):
        mloss_cdf(call.pop("activation"), call.pop("d"), **call)

"""GELU's expectation against brute quadrature, its limits and its symmetries."""

import numpy as np
import pytest
from gelu_reference import reference_gelu
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from strategies import error_laws

from theory import expected_mloss, mloss_bound, total_variation

EQUAL, INDEPENDENT = (0.5, 0.5), [[1, 0], [0, 1]]
CASES = {
    "paper": (2.0, 1.0, EQUAL, INDEPENDENT),
    "wide errors": (10.0, 3.0, EQUAL, INDEPENDENT),
    "errors wider than the range": (0.1, 1.0, EQUAL, INDEPENDENT),
    "huge": (200.0, 50.0, EQUAL, INDEPENDENT),
    "small sigma at the inflection": (1.4, 1e-2, EQUAL, INDEPENDENT),
    "tiny sigma": (1.4, 1e-6, EQUAL, INDEPENDENT),
    "unequal weights": (1.3, 0.4, (0.3, 0.7), [[1, 0.4], [0.4, 2]]),
    "skewed": (30.0, 10.0, (0.9, 0.1), [[1, -0.3], [-0.3, 0.5]]),
    "errors that oppose each other": (3.0, 1.0, EQUAL, [[1, -0.9], [-0.9, 1]]),
    "m follows u, rising": (37.0, 3.4, (0.21, 0.79), [[5.25, 4.36], [4.36, 3.63]]),
    "m follows u, falling": (2.4, 0.52, (0.08, 0.92), [[0.31, 0.77], [0.77, 2.71]]),
    "one source is the base": (3.0, 2.0, EQUAL, [[1, 0], [0, 0]]),
}


def assert_matches_brute_quadrature(k, sigma, weights, cov):
    found = expected_mloss("gelu", k, sigma, weights=weights, cov=cov)
    expected = reference_gelu(k, sigma, weights, cov)
    # The reference itself is good to about 1e-11 where the law of m is sharpest.
    assert_allclose(found, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("case", CASES)
def test_gelu_matches_brute_quadrature(case):
    assert_matches_brute_quadrature(*CASES[case])


def random_cases(count, *, seed):
    """k, sigma, weights and cov: half of them the paper's law, extremes included."""
    rng = np.random.default_rng(seed)
    for case in range(count):
        sigma = 10 ** rng.uniform(-5, 3)
        k = sigma * (0.1, 1e8, 10 ** rng.uniform(-1, 2), 1 / sigma)[case % 4]
        if case % 8 < 4:
            yield k, sigma, EQUAL, INDEPENDENT
        else:
            weight, factor = rng.uniform(0.02, 0.98), rng.normal(size=(2, 2))
            yield k, sigma, (weight, 1 - weight), factor @ factor.T


@pytest.mark.parametrize("case", [*random_cases(8, seed=0)])
def test_gelu_matches_brute_quadrature_at_random_points(case):
    assert_matches_brute_quadrature(*case)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*random_cases(160, seed=1)])
def test_gelu_matches_brute_quadrature_at_many_points(case):
    assert_matches_brute_quadrature(*case)


@pytest.mark.parametrize("k", [0.01, 0.5, 3.0, 1e3])
def test_small_sigma_limit_is_the_mean_of_the_curvature(k):
    # 1/2 V mean |f''| over (-k, k); the next order is sigma^2, far below 1e-10 here.
    x = np.linspace(0, min(k, 40.0), 400_001)
    second = np.abs(np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi) * (2 - x**2))
    mean = np.trapezoid(second, x) / k
    sigma = 1e-6 * k if k < 1 else 1e-6
    # Trapezoid at steps of 1e-4 with a kink: about 1e-9.
    assert_allclose(expected_mloss("gelu", k, sigma), sigma**2 / 4 * mean, rtol=1e-8)


@pytest.mark.parametrize("ratio", [0.5, 3.0, 100.0])
def test_gelu_becomes_relu_as_sigma_grows(ratio):
    relu = [expected_mloss("relu", ratio * s, s) for s in (1e3, 1e4)]
    gelu = [expected_mloss("gelu", ratio * s, s) for s in (1e3, 1e4)]
    excess = np.array(gelu) / np.array(relu) - 1
    # The excess falls with 1/sigma^2; a hundredfold, to its next order.
    assert_allclose(excess[0] / excess[1], 100, rtol=1e-2)


@given(law=error_laws(st.just(2)), k=st.floats(0.01, 1e4), sigma=st.floats(1e-6, 1e3))
def test_gelu_lies_between_the_signed_gap_and_the_bound(law, k, sigma):
    weights, cov = law
    given = {"weights": weights, "cov": cov}
    found = expected_mloss("gelu", k, sigma, **given)
    bound = mloss_bound("gelu", k, sigma, **given)
    assert np.isfinite(found)
    assert 0 <= found <= bound * (1 + 1e-10)


@given(law=error_laws(st.just(2)), k=st.floats(0.1, 100), sigma=st.floats(1e-3, 30))
def test_sources_may_be_exchanged(law, k, sigma):
    weights, cov = law
    found = expected_mloss("gelu", k, sigma, weights=weights, cov=cov)
    exchanged = expected_mloss(
        "gelu", k, sigma, weights=weights[::-1], cov=cov[::-1, ::-1]
    )
    # Equal to the accuracy of the quadrature, whose panels differ.
    assert_allclose(found, exchanged, rtol=2e-10, atol=0)


def test_arrays_give_what_scalars_give():
    k, sigma = np.geomspace(0.1, 1e4, 7)[:, None], np.geomspace(1e-6, 10, 5)
    table = expected_mloss("gelu", k, sigma)
    assert table.shape == (7, 5)
    one = [[float(expected_mloss("gelu", a, b)) for b in sigma] for a in k[:, 0]]
    assert_allclose(table, one, rtol=1e-14)


def test_constant_falls_from_the_total_variation_to_relu():
    sigma = np.geomspace(1e-4, 1e4, 60)
    constant = expected_mloss("gelu", 1e9, sigma) * 1e9 / sigma**2
    assert (np.diff(constant) < 0).all()
    assert_allclose(constant[0], total_variation("gelu") / 8, rtol=1e-7)
    assert_allclose(constant[-1], 1 / 8, rtol=1e-7)

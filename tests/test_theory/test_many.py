"""Sampled expectations against quadrature, plain sampling and their own error."""

from fractions import Fraction

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from theory import expected_mloss, many
from theory.activations import NAMED
from theory.law import error_law
from theory.many import departure_gap, estimated_mloss, sampled_mloss

FAR = np.diag([1e4, 1.0, 1.0, 1.0])
ONE_ERROR = np.outer([1.0, -0.5, 2.0], [1.0, -0.5, 2.0])


def sampled_pair(name, k, sigma, *, rtol, seed=0, weights=None, cov=None):
    """E[D] of two sources by the route that larger q take."""
    law = error_law(2, weights, cov)
    scale = np.array(float(k)), np.array(float(sigma))
    return sampled_mloss(NAMED[name], *scale, law, rtol=rtol, seed=seed)


@pytest.mark.parametrize("name", ["gelu", "silu", "tanh", "relu6", "hard_swish"])
@pytest.mark.parametrize(
    ("k", "sigma"), [(3.0, 1.0), (1e6, 1.0), (0.1, 1.0), (10.0, 1e-6)]
)
def test_the_sampling_route_meets_the_quadrature_of_two_sources(name, k, sigma):
    found = sampled_pair(name, k, sigma, rtol=1e-3)
    exact = expected_mloss(name, k, sigma)
    assert found.error <= 1e-3 * found.value
    # The error is three standard errors; five, and the quadrature's own 1e-10.
    assert abs(found.value - exact) <= 5 / 3 * found.error + 1e-10 * exact


def test_unequal_correlated_pairs_meet_the_quadrature():
    law = {"weights": [0.8, 0.2], "cov": [[1, -0.6], [-0.6, 4]]}
    found = sampled_pair("gelu", 2.0, 0.7, rtol=1e-3, **law)
    exact = expected_mloss("gelu", 2.0, 0.7, **law)
    assert abs(found.value - exact) <= 5 / 3 * found.error


def plain_sample(f, k, sigma, *, weights, cov, n, rng):
    """Mean and standard error of D, drawn from the definition."""
    root = np.linalg.cholesky(cov + 1e-15 * np.eye(len(cov)))
    x = rng.uniform(-k, k, size=n)
    h = x[:, None] + sigma * rng.normal(size=(n, len(cov))) @ root.T  # [n, q]
    D = np.abs(f(h @ weights) - f(h) @ weights)
    return D.mean(), D.std() / np.sqrt(n)


@pytest.mark.parametrize("name", ["gelu", "tanh", "hard_swish"])
@pytest.mark.parametrize(
    ("weights", "cov"),
    [
        (np.full(3, 1 / 3), np.eye(3)),
        (np.full(8, 1 / 8), np.eye(8)),
        (np.array([0.1, 0.2, 0.3, 0.4]), FAR),
        (np.array([0.2, 0.5, 0.3]), ONE_ERROR),
    ],
    ids=["three", "eight", "one far away", "one error, three sizes"],
)
def test_plain_sampling_agrees(name, weights, cov):
    k, sigma, q = 3.0, 0.8, len(weights)
    found = estimated_mloss(name, k, sigma, q=q, weights=weights, cov=cov, rtol=1e-3)
    rng = np.random.default_rng(20261122)
    n = 500_000
    mean, stderr = plain_sample(
        NAMED[name], k, sigma, weights=weights, cov=cov, n=n, rng=rng
    )
    assert stderr <= 3e-3 * mean, "too noisy to test"
    assert abs(found.value - mean) <= 5 * np.hypot(stderr, found.error / 3)


@pytest.mark.parametrize("name", ["gelu", "tanh"])
def test_the_error_is_honest_over_seeds(name):
    exact = expected_mloss(name, 3.0, 1.0)
    runs = [sampled_pair(name, 3.0, 1.0, rtol=5e-3, seed=s) for s in range(60)]
    off = np.array([(r.value - exact) / (r.error / 3) for r in runs])
    # 15 degrees of freedom: beyond three in 0.9 % of runs, five of 60 once in 5000.
    assert (np.abs(off) > 3).sum() < 5
    # Their mean square is 15 / 13 and its standard error over 60 runs a fifth of it.
    assert 0.3 < np.mean(off**2) < 2.2


def test_smaller_gaps_follow_the_curvature():
    # D = V |f''| / 2 to relative order sigma^2; V = sigma^2 (1 - 1/q) on average.
    x = np.linspace(-9, 9, 900_001)
    mean = np.trapezoid(np.abs(NAMED["gelu"].curvature(x)), x) / (2 * 1e3)
    found = estimated_mloss("gelu", 1e3, 1e-6, q=8, rtol=1e-3)
    claim = 1e-12 * (1 - 1 / 8) / 2 * mean
    assert abs(found.value - claim) <= 5 / 3 * found.error + 1e-8 * claim


def hard_swish_exactly(x):
    return x * min(max(x + 3, 0), 6) / 6


@pytest.mark.parametrize("m", [-3.0 - 2.0**-12, 0.5, 3.0 - 2.0**-11, 3.0, 5.0])
@pytest.mark.parametrize("size", [2.0**-11, 2.0**-20, 2.0])
def test_gaps_keep_their_digits_however_small(m, size):
    departure = np.array([[3.0, -1.0, -1.0]]) * size
    weights = np.array([0.25, 0.5, 0.25])
    found = departure_gap(NAMED["hard_swish"], np.array([m]), departure, weights)
    h = [Fraction(m) + Fraction(d) for d in departure[0]]
    parts = zip([Fraction(1, 4), Fraction(1, 2), Fraction(1, 4)], h, strict=True)
    gap = sum(w * hard_swish_exactly(x) for w, x in parts)
    gap -= hard_swish_exactly(Fraction(m))
    # Where the departures are wide, rounding is that of f; else that of d^2, or of
    # the distance |m + d - kink| = O(d) times a jump.
    atol = 1e-14 if size > 1 else 1e-15 * size
    assert_allclose(found[0], float(gap), rtol=1e-13, atol=atol)


def test_what_is_known_exactly_is_returned():
    for name, q, accuracy in [("gelu", 2, 1e-10), ("softplus", 5, 1e-10)]:
        found = estimated_mloss(name, [2.0, 3.0], 1.0, q=q)
        assert_array_equal(found.value, expected_mloss(name, [2.0, 3.0], 1.0, q=q))
        assert_array_equal(found.error, accuracy * found.value)
    relu = estimated_mloss("relu", 2.0, 1.0, q=64)
    assert relu.error == 1e-12 * relu.value
    shared = estimated_mloss("gelu", 2.0, 1.0, q=3, cov=np.ones((3, 3)))
    assert (shared.value, shared.error) == (0, 0)


def test_arrays_give_what_scalars_give():
    k, sigma = np.array([[2.0], [5.0]]), np.array([0.5, 1.0])
    table = estimated_mloss("gelu", k, sigma, q=3, rtol=1e-2)
    assert table.value.shape == table.error.shape == (2, 2)
    one = estimated_mloss("gelu", 5.0, 0.5, q=3, rtol=1e-2)
    assert table.value[1, 0] == one.value


def test_a_bare_function_is_sampled_too():
    named = estimated_mloss("tanh", 2.0, 1.0, q=3, rtol=1e-3)
    bare = estimated_mloss(np.tanh, 2.0, 1.0, q=3, rtol=1e-3)
    # The same errors are drawn, at places whose density differs.
    assert abs(named.value - bare.value) <= 5 / 3 * np.hypot(named.error, bare.error)


def test_what_was_reached_is_said(monkeypatch):
    monkeypatch.setattr(many, "_MOST", 2**13)
    with pytest.raises(ArithmeticError, match="rtol = 1e-06 was not reached for 'gelu"):
        estimated_mloss("gelu", 2.0, 1.0, q=3, rtol=1e-6)


@pytest.mark.parametrize("rtol", [0.0, -1.0, 1.0, float("nan")])
def test_a_tolerance_is_a_fraction(rtol):
    with pytest.raises(ValueError, match="rtol must lie between 0 and 1"):
        estimated_mloss("gelu", 2.0, 1.0, q=3, rtol=rtol)

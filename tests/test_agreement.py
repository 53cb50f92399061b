"""Two routes to one number: theory against simulation, which share no line."""

import numpy as np
import pytest

from simulate import Estimate, estimate_mloss
from simulate.activations import KNOWN
from theory import LeakyReLU, expected_mloss, mloss_bound
from theory.activations import NAMED

EQUAL = {"weights": None, "cov": None}
SKEWED = {
    "weights": [0.2, 0.3, 0.5],
    "cov": [[1.0, 0.5, 0.0], [0.5, 2.0, -0.3], [0.0, -0.3, 0.7]],
}
OPPOSED = {"weights": [0.3, 0.7], "cov": [[1.0, -0.6], [-0.6, 0.5]]}
CELLS = [
    ("relu", 0.5, 1.0, 2, EQUAL),
    ("relu", 2.0, 1.0, 2, EQUAL),
    ("relu", 10.0, 1.0, 2, EQUAL),
    ("relu", 20.0, 1.0, 8, EQUAL),
    ("relu", 4.0, 2.0, 3, SKEWED),
    ("relu", 2.0, 1.0, 2, OPPOSED),
    ("leaky_relu", 2.0, 1.0, 2, EQUAL),
    ("gelu", 0.5, 1.0, 2, EQUAL),
    ("gelu", 2.0, 0.1, 2, EQUAL),
    ("gelu", 5.0, 2.0, 2, EQUAL),
    ("gelu", 30.0, 10.0, 2, EQUAL),
    ("gelu", 2.0, 1.0, 2, OPPOSED),
    ("prelu", 2.0, 1.0, 5, EQUAL),
    ("elu", 2.0, 1.0, 4, EQUAL),
    ("softplus", 2.0, 1.0, 3, SKEWED),
    ("relu6", 8.0, 2.0, 2, EQUAL),
    ("hard_swish", 4.0, 1.0, 2, OPPOSED),
    ("selu", 3.0, 1.0, 2, EQUAL),
    ("gelu_tanh", 2.0, 0.5, 2, EQUAL),
    ("quick_gelu", 3.0, 1.0, 2, OPPOSED),
    ("silu", 4.0, 1.0, 2, EQUAL),
    ("mish", 3.0, 0.5, 2, EQUAL),
    ("tanh", 2.0, 1.0, 2, OPPOSED),
    ("sigmoid", 5.0, 2.0, 2, EQUAL),
]


METHODS = {  # samples, and the standard error that they must reach
    "mc": (2**19, 0.01),
    "antithetic": (2**19, 0.01),
    "stratified": (2**19, 0.01),
    "importance": (2**17, 0.006),
    "qmc": (2**14, 0.004),
}
LEVEL = 1 - 1e-7  # of every interval: 200 of them err 1 time in 50,000


def assert_consistent(estimate: Estimate, claim: float, *, sharp: float) -> None:
    """The claim is in an interval that is narrow enough to have refuted it."""
    assert estimate.stderr <= sharp, f"too noisy: {estimate.stderr:.1e} > {sharp:.1e}"
    low, high = estimate.interval(LEVEL)
    assert low <= claim <= high, f"{estimate} against {claim}"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("activation", "k", "sigma", "q", "law"), CELLS)
def test_theory_is_what_simulation_finds(activation, k, sigma, q, law, method):
    exact = float(expected_mloss(activation, k, sigma, q=q, **law))
    n, sharp = METHODS[method]
    rng = np.random.default_rng(1)
    found = estimate_mloss(
        activation, k, sigma, q=q, n=n, rng=rng, method=method, **law
    )
    assert_consistent(found, exact, sharp=sharp * exact)


@pytest.mark.parametrize("method", ["importance", "qmc"])
@pytest.mark.parametrize("k", [100.0, 1e4, 1e6, 1e8])
@pytest.mark.parametrize("activation", sorted(KNOWN.keys() - {"identity"}))
def test_they_meet_where_almost_no_input_is_near_a_bend(activation, k, method):
    exact = float(expected_mloss(activation, k, 1.0))
    n, sharp = METHODS[method]
    rng = np.random.default_rng(2)
    found = estimate_mloss(activation, k, 1.0, n=n, rng=rng, method=method)
    assert_consistent(found, exact, sharp=sharp * exact)


def test_both_routes_know_the_same_activations():
    assert set(KNOWN) == set(NAMED)


def test_a_users_slope_means_the_same_on_both_sides():
    def leaky(x):
        return np.where(x > 0, x, 0.3 * x)

    exact = float(expected_mloss(LeakyReLU(0.3), 2.0, 1.0))
    found = estimate_mloss(leaky, 2.0, 1.0, n=1_000_000, rng=np.random.default_rng(2))
    assert_consistent(found, exact, sharp=0.003 * exact)


@pytest.mark.parametrize("activation", ["silu", "quick_gelu", "mish", "tanh"])
def test_the_bound_bounds_and_is_nearly_reached(activation):
    bound = float(mloss_bound(activation, 30.0, 0.3))
    rng = np.random.default_rng(3)
    found = estimate_mloss(activation, 30.0, 0.3, n=2**14, rng=rng, method="qmc")
    assert found.stderr < 0.005 * bound
    low, high = found.interval(LEVEL)
    # At sigma = 0.3 the law is good to a few per cent for these.
    assert low < bound
    assert high > 0.95 * bound

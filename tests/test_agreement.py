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


def assert_consistent(
    estimate: Estimate, claim: float, *, sharp: float, z: float = 5.0
) -> None:
    """|estimate - claim| <= z standard errors, with an error that could refute.

    `sharp` caps the standard error; z = 5 wrongly fails about 1 run in 1.7 million.
    """
    assert estimate.stderr <= sharp, f"too noisy: {estimate.stderr:.1e} > {sharp:.1e}"
    off = abs(estimate.value - claim) / estimate.stderr
    assert off <= z, f"{off:.1f} standard errors apart: {estimate} against {claim}"


@pytest.mark.parametrize(("activation", "k", "sigma", "q", "law"), CELLS)
def test_theory_is_what_simulation_finds(activation, k, sigma, q, law):
    exact = float(expected_mloss(activation, k, sigma, q=q, **law))
    found = estimate_mloss(
        activation, k, sigma, q=q, n=2_000_000, rng=np.random.default_rng(1), **law
    )
    # Sharp enough to see 2 % at z = 5; most cells see half a percent.
    assert_consistent(found, exact, sharp=0.004 * exact)


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
    found = estimate_mloss(
        activation, 30.0, 0.3, n=4_000_000, rng=np.random.default_rng(3)
    )
    assert found.stderr < 0.005 * bound
    assert found.value - 5 * found.stderr < bound
    # At sigma = 0.3 the law is good to a few per cent for these.
    assert found.value + 5 * found.stderr > 0.95 * bound

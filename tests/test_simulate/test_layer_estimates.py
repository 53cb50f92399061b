import numpy as np
import pytest
from numpy.testing import assert_allclose

from simulate import Empirical, Gaussian, Laplace, estimate_layer_mloss, estimate_mloss
from simulate.samplers import METHODS

LEVEL = 1 - 1e-7
CORRELATION = [[1.0, 0.8, -0.3], [0.8, 1.0, 0.1], [-0.3, 0.1, 1.0]]
COV = [[1.0, 0.5, 0.0], [0.5, 2.0, -0.3], [0.0, -0.3, 0.7]]
LAWS = [
    3.0,
    0.3,
    Gaussian(4.0),
    Laplace(1.0),
    Empirical(np.linspace(-6, 6, 41)),
    Empirical(np.array([-0.1, 0.0, 0.2])),
]


def layer(law, n, seed=0, **given):
    rng = np.random.default_rng(seed)
    return estimate_layer_mloss("gelu", law, 1.0, n=n, rng=rng, **given)


def overlap(one, other):
    """Intervals that meet err together no more often than either alone."""
    return (
        one.interval(LEVEL)[0] <= other.interval(LEVEL)[1]
        and other.interval(LEVEL)[0] <= one.interval(LEVEL)[1]
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("normalized", [False, True])
def test_a_layer_of_one_node_is_the_node(method, normalized):
    node = estimate_mloss(
        "gelu",
        3.0,
        1.0,
        n=2**12,
        rng=np.random.default_rng(0),
        method=method,
        normalized=normalized,
    )
    assert layer(3.0, 2**12, nodes=1, method=method, normalized=normalized) == node


@pytest.mark.parametrize("method", METHODS)
def test_equal_nodes_are_one_node_times_the_root_of_their_number(method):
    given = {"n": 2**10, "method": method}  # one block, so one order of draws
    one = layer(3.0, nodes=1, **given)
    many = layer(3.0, nodes=5, correlation=1.0, **given)
    # The same draws but for the maps to normal scores and back, good to 1e-13 where
    # the input's density is a thousandth; the norm of five adds a few roundings. A
    # shifted order of the mixture's picks changes the weighted methods' draws.
    if method in ("mc", "antithetic", "stratified"):
        assert_allclose(many.value, np.sqrt(5) * one.value, rtol=1e-10)
        assert_allclose(many.stderr, np.sqrt(5) * one.stderr, rtol=1e-10)
    else:
        scaled = type(one)(
            np.sqrt(5) * one.value, np.sqrt(5) * one.stderr, one.n, one.degrees
        )
        assert overlap(many, scaled)


@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize("normalized", [False, True])
def test_all_methods_see_one_correlated_layer(law, normalized):
    given = {
        "nodes": 3,
        "correlation": CORRELATION,
        "q": 3,
        "weights": [0.2, 0.3, 0.5],
        "cov": COV,
        "normalized": normalized,
        "eps": 0.1,
    }
    found = {
        m: layer(law, 2**15, seed=i, method=m, **given) for i, m in enumerate(METHODS)
    }
    for estimate in found.values():
        assert estimate.stderr < 0.02 * estimate.value
        assert overlap(estimate, found["qmc"])


def test_the_mean_square_of_independent_nodes_adds_up():
    """For f = x^2 and q = 2 a node loses d^2, d ~ N(0, 1/2); a layer their norm."""
    rng = np.random.default_rng(2)
    found = estimate_layer_mloss(
        np.square, 1.0, 1.0, nodes=2, n=2**16, rng=rng, method="qmc"
    )
    # E sqrt(d1^4 + d2^4) in polar coordinates: E r^2 = 1, times the mean of
    # sqrt(cos^4 + sin^4) over the circle, by the periodic trapezium rule.
    angle = 2 * np.pi * np.arange(64) / 64
    expected = np.sqrt(np.cos(angle) ** 4 + np.sin(angle) ** 4).mean()
    assert found.stderr < 0.005 * expected
    low, high = found.interval(LEVEL)
    assert low <= expected <= high

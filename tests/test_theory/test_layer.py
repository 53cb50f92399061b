"""Layers against nodes, plain sampling and their limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.integrate import quad
from strategies import ratios, slopes

from theory import LeakyReLU, expected_mloss
from theory.activations import NAMED
from theory.distribution import (
    estimated_second_moment,
    mloss_second_moment,
    mloss_survival,
)
from theory.layers.layer import expected_layer_mloss, layer_bounds

RATIOS = [0.1, 0.7, 2.0, 30.0, 1e3, 1e6]
SMOOTH = ["gelu", "silu", "tanh", "softplus", "mish"]
KINKED = ["elu", "relu6", "hard_swish"]
UNEQUAL = {"weights": [0.8, 0.2], "cov": [[1, -0.6], [-0.6, 4]]}


def sampled_gaps(f, k, sigma, *, shape, weights=(0.5, 0.5), cov=None, seed=20261122):
    """D and the merged output, [*shape], from the definition."""
    rng, w = np.random.default_rng(seed), np.asarray(weights)
    root = np.linalg.cholesky(np.eye(len(w)) if cov is None else np.asarray(cov))
    x = rng.uniform(-k, k, size=shape)
    h = x[..., None] + np.expand_dims(sigma, -1) * (
        rng.normal(size=(*shape, len(w))) @ root.T
    )
    return np.abs(f(h @ w) - f(h) @ w), f(h @ w)


def assert_mean(sample, claim, *, sharp, error=0.0):
    stderr = sample.std() / np.sqrt(sample.size)
    assert stderr <= sharp * claim, "too noisy to test"
    assert abs(sample.mean() - claim) <= 5 * np.hypot(stderr, error)


@pytest.mark.parametrize("name", [*SMOOTH, *KINKED])
@pytest.mark.parametrize("law", [{}, UNEQUAL], ids=["paper", "unequal"])
@pytest.mark.parametrize(("k", "sigma"), [(3.0, 0.8), (1e6, 1.0), (5.0, 0.01)])
def test_a_layer_of_one_node_is_the_node(name, law, k, sigma):
    found = expected_layer_mloss(name, k, sigma, nodes=1, **law)
    rough = name in ("relu6", "hard_swish") and law
    rtol = 1e-6 if rough else 1e-8
    assert_allclose(found, expected_mloss(name, k, sigma, **law), rtol=rtol)


@pytest.mark.parametrize("ratio", RATIOS)
def test_a_layer_of_one_relu_is_the_closed_form(ratio):
    found = expected_layer_mloss("relu", 0.3 * ratio, 0.3, nodes=1)
    assert_allclose(found, expected_mloss("relu", 0.3 * ratio, 0.3), rtol=1e-10)


def relu_layer_by_survival(ratio, d):
    """E[L] at sigma = 1 from P(D > t), which has a form of its own for ReLU."""
    nodes, weights = np.polynomial.legendre.leggauss(64)

    def lost(log_s):
        s = np.exp(log_s)
        top = min(4.5, 9 / np.sqrt(s))
        t = top * (1 + nodes) / 2
        chance = mloss_survival("relu", t, k=ratio, sigma=1.0)
        gone = 2 * s * t * np.exp(-s * t**2) * chance @ weights * top / 2
        return -np.expm1(d * np.log1p(-gone)) / np.sqrt(s)

    log_s = np.arange(-110.0, 90.0, 0.2)
    return sum(map(lost, log_s)) * 0.2 / (2 * np.sqrt(np.pi))


@pytest.mark.parametrize("ratio", [0.1, 2.0, 1e3])
@pytest.mark.parametrize("d", [2, 50, 10**6])
def test_relu_layers_against_the_law_of_their_gaps(ratio, d):
    found = expected_layer_mloss("relu", ratio, 1.0, nodes=d)
    assert_allclose(found, relu_layer_by_survival(ratio, d), rtol=1e-9)


@pytest.mark.parametrize("name", ["relu", "gelu", "tanh", "hard_swish"])
@pytest.mark.parametrize(("k", "nodes"), [(0.5, 2), (2.0, 8), (5.0, 50)])
@pytest.mark.parametrize("law", [{}, UNEQUAL], ids=["paper", "unequal"])
def test_layers_against_plain_sampling(name, law, k, nodes):
    D, _ = sampled_gaps(NAMED[name], k, 0.8, shape=(1_000_000 // nodes, nodes), **law)
    norm = np.sqrt((D**2).sum(axis=1))
    claim = expected_layer_mloss(name, k, 0.8, nodes=nodes, **law)
    assert_mean(norm, claim, sharp=5e-3)


@pytest.mark.parametrize("name", ["gelu", "tanh", "silu", "softplus"])
@pytest.mark.parametrize("sigma", [1e-3, 1e-5, 1e-7])
def test_small_errors_square_the_curvature(name, sigma):
    # S = f'' u^2 / 8 to relative order sigma^2, and E[u^4] = 12 sigma^4.
    x = np.linspace(-60, 60, 120_001)
    square = np.trapezoid(NAMED[name].curvature(x) ** 2, x) / (2 * 60)
    found = mloss_second_moment(name, 60.0, sigma)
    assert_allclose(found, 3 / 16 * sigma**4 * square, rtol=10 * sigma**2 + 1e-8)


@pytest.mark.parametrize("name", ["gelu", "tanh", "relu6"])
def test_a_bare_function_is_the_named_one(name):
    law = UNEQUAL if name == "gelu" else {}
    bare = mloss_second_moment(lambda x: NAMED[name](x), 3.0, 0.8, **law)
    assert_allclose(bare, mloss_second_moment(name, 3.0, 0.8, **law), rtol=1e-6)


@pytest.mark.parametrize("name", ["relu", "gelu"])
def test_unlike_nodes_against_plain_sampling(name):
    k, sigma = np.array([0.5, 2.0, 2.0, 8.0]), np.array([0.3, 1.0, 0.5, 1.0])
    D, _ = sampled_gaps(NAMED[name], k, sigma, shape=(400_000, 4))
    claim = expected_layer_mloss(name, k, sigma)
    assert_mean(np.sqrt((D**2).sum(axis=1)), claim, sharp=3e-3)
    lower, upper = layer_bounds(name, k, sigma)
    assert lower < claim < upper


def test_the_last_axis_is_the_layer():
    one = expected_layer_mloss("gelu", 2.0, 1.0, nodes=6)
    row = expected_layer_mloss("gelu", np.full(6, 2.0), 1.0)
    table = expected_layer_mloss("gelu", np.full((2, 1), 2.0), np.ones((1, 6)))
    assert_allclose(row, one, rtol=1e-13)
    assert_allclose(table, [one, one], rtol=1e-13)
    wide = layer_bounds("gelu", np.full(6, 2.0), 1.0)
    assert_allclose(wide, layer_bounds("gelu", 2.0, 1.0, nodes=6), rtol=1e-13)


def test_a_node_without_a_gap_changes_nothing():
    # Its gap is of order sigma^2, and so is what it adds beside the other's.
    k, sigma = np.array([2.0, 2.0]), np.array([1.0, 1e-7])
    one = expected_mloss("gelu", 2.0, 1.0)
    assert_allclose(expected_layer_mloss("gelu", k, sigma), one, rtol=1e-8)
    assert expected_layer_mloss("identity", 2.0, 1.0, nodes=5) == 0
    shared = {"cov": np.ones((2, 2))}
    assert expected_layer_mloss("gelu", 2.0, 1.0, nodes=5, **shared) == 0


@pytest.mark.parametrize("name", ["relu", "gelu", "tanh"])
@pytest.mark.parametrize("ratio", [0.1, 3.0, 1e6])
def test_bounds_hold_and_meet_in_wide_layers(name, ratio):
    for nodes in (1, 3, 1000, 10**8):
        lower, upper = layer_bounds(name, ratio, 1.0, nodes=nodes)
        found = expected_layer_mloss(name, ratio, 1.0, nodes=nodes)
        assert lower * (1 - 1e-8) <= found <= upper * (1 + 1e-8)
    # E sqrt(Y) = sqrt(E Y) (1 - O(1/d)): with 10^8 nodes, E[D^4]/E[D^2]^2 / 8e8.
    rare = 10 * max(ratio, 1)
    assert_allclose(found, upper, rtol=1e-8 * rare)


@settings(max_examples=20)
@given(ratio=ratios, slope=slopes, nodes=st.integers(1, 10**6))
def test_bounds_are_in_order(ratio, slope, nodes):
    leaky = LeakyReLU(slope)
    lower, upper = layer_bounds(leaky, ratio, 1.0, nodes=nodes)
    found = expected_layer_mloss(leaky, ratio, 1.0, nodes=nodes)
    assert lower * (1 - 1e-10) <= found <= upper * (1 + 1e-10)


def test_wide_layers_fall_short_of_the_upper_bound_by_their_variance():
    # E sqrt(Y) = sqrt(E Y) (1 - Var Y / (8 (E Y)^2) + O(d^-2)), Y a sum of d squares.
    k, sigma, d = 2.0, 1.0, 10**4
    square = mloss_second_moment("relu", k, sigma)
    fourth = quad(
        lambda t: 4 * t**3 * mloss_survival("relu", t, k=k, sigma=sigma), 0, 4.5
    )[0]
    loss = (fourth / square**2 - 1) / (8 * d)
    found = expected_layer_mloss("relu", k, sigma, nodes=d)
    _, upper = layer_bounds("relu", k, sigma, nodes=d)
    # The next order is about the kurtosis squared over d^2, a thousandth of this.
    assert_allclose(1 - found / upper, loss, rtol=5e-2)


@pytest.mark.parametrize("name", ["relu", "gelu", "tanh", "relu6"])
@pytest.mark.parametrize(
    ("weights", "cov"),
    [
        (np.full(3, 1 / 3), np.eye(3)),
        (np.full(8, 1 / 8), np.eye(8)),
        (np.array([0.1, 0.2, 0.3, 0.4]), np.diag([100.0, 1.0, 1.0, 1.0])),
    ],
    ids=["three", "eight", "one far away"],
)
def test_many_sources_against_plain_sampling(name, weights, cov):
    law = {"q": len(weights), "weights": weights, "cov": cov}
    D, _ = sampled_gaps(
        NAMED[name], 3.0, 0.8, shape=(40_000, 8), weights=weights, cov=cov
    )
    square = estimated_second_moment(name, 3.0, 0.8, **law)
    assert square.error <= 1e-3 * square.value
    assert_mean(D**2, square.value, sharp=2e-2, error=square.error / 3)
    lower, upper = layer_bounds(name, 3.0, 0.8, nodes=8, **law)
    norm = np.sqrt((D**2).sum(axis=1))
    slack = 5 * norm.std() / np.sqrt(norm.size)
    assert lower - slack <= norm.mean() <= upper + slack


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ("nodes must be a", lambda: expected_layer_mloss("relu", 2.0, 1.0, nodes=0)),
        ("nodes must be a", lambda: layer_bounds("relu", 2.0, 1.0, nodes=2.5)),
        ("nodes must be given", lambda: layer_bounds("relu", 2.0, 1.0)),
        ("3 sources", lambda: expected_layer_mloss("gelu", 2.0, 1.0, nodes=3, q=3)),
        ("3 sources", lambda: mloss_second_moment("gelu", 2.0, 1.0, q=3)),
        ("sigma must lie in", lambda: mloss_second_moment("gelu", 2.0, 1e-9)),
        ("rtol must lie", lambda: layer_bounds("relu", 2.0, 1.0, nodes=2, rtol=0)),
        ("k must be finite", lambda: expected_layer_mloss("relu", -2.0, 1.0, nodes=2)),
    ],
)
def test_bad_input_is_named(words, call):
    with pytest.raises(ValueError, match=words):
        call()

"""Layers and normalised forms against nodes, plain sampling and their limits."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.special import ndtr

from theory import LeakyReLU, expected_mloss
from theory.distribution import mloss_second_moment, mloss_survival
from theory.layer import expected_layer_mloss, layer_bounds, normalized_mloss
from theory.signed import phi

RATIOS = [0.1, 0.7, 2.0, 30.0, 1e3, 1e6]


def sampled_nodes(slope, k, sigma, *, shape, seed):
    """D and the merged output of Leaky ReLU, [*shape], from the definition."""
    rng = np.random.default_rng(seed)
    h = rng.uniform(-k, k, size=shape) + sigma * rng.normal(size=(2, *shape))

    def f(x):
        return np.where(x > 0, x, slope * x)

    return np.abs(f(h.mean(axis=0)) - f(h).mean(axis=0)), f(h.mean(axis=0))


def assert_mean(sample, claim, *, sharp):
    stderr = sample.std() / np.sqrt(sample.size)
    assert stderr <= sharp * claim, "too noisy to test"
    assert abs(sample.mean() - claim) <= 5 * stderr


@pytest.mark.parametrize("ratio", RATIOS)
def test_a_layer_of_one_node_is_the_node(ratio):
    found = expected_layer_mloss("relu", 0.3 * ratio, 0.3, nodes=1)
    assert_allclose(found, expected_mloss("relu", 0.3 * ratio, 0.3), rtol=1e-10)


@pytest.mark.parametrize("slope", [0.0, 0.3])
@pytest.mark.parametrize(("k", "nodes"), [(0.5, 2), (2.0, 8), (5.0, 50)])
def test_layers_against_plain_sampling(slope, k, nodes):
    shape = (2_000_000 // nodes, nodes)
    D, _ = sampled_nodes(slope, k, 0.8, shape=shape, seed=20261122)
    norm = np.sqrt((D**2).sum(axis=1))
    claim = expected_layer_mloss(LeakyReLU(slope), k, 0.8, nodes=nodes)
    assert_mean(norm, claim, sharp=3e-3)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("nodes", [1, 3, 1000, 10**8])
def test_bounds_hold(ratio, nodes):
    lower, upper = layer_bounds("relu", ratio, 1.0, nodes=nodes)
    found = expected_layer_mloss("relu", ratio, 1.0, nodes=nodes)
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


@pytest.mark.parametrize("slope", [0.0, 0.3, -0.5])
@pytest.mark.parametrize(("k", "eps"), [(0.5, 0.1), (2.0, 1.0), (2.0, 1e-2)])
def test_the_normalised_node_against_plain_sampling(slope, k, eps):
    D, output = sampled_nodes(slope, k, 0.8, shape=(2_000_000,), seed=20261122)
    claim = normalized_mloss(LeakyReLU(slope), k, 0.8, eps=eps)
    assert_mean(D / (np.abs(output) + eps), claim, sharp=5e-3)


@pytest.mark.parametrize("slope", [0.0, 0.3])
@pytest.mark.parametrize("ratio", [0.1, 2.0, 1e3])
@pytest.mark.parametrize("eps", [1e-8, 1e-4, 1.0])
def test_the_normalised_node_against_quadrature(slope, ratio, eps):
    # m and half the difference are independent given x, of deviation t each.
    k, sigma = 0.3 * ratio, 0.3
    t = sigma / np.sqrt(2)

    def integrand(log_m):
        m = np.exp(log_m)
        gap = t * phi(m / t) - m * ndtr(-m / t)
        density = (ndtr((k - m) / t) - ndtr((-k - m) / t)) / (2 * k)
        return m * gap * density * (1 / (m + eps) + 1 / (slope * m + eps))

    log_t = np.log(t)
    edges = [np.log(eps) - 40, *(log_t + np.array([-18, -9, -4, -2, 0, 1, 2, 2.3]))]
    parts = [
        quad(integrand, a, b, epsabs=0, epsrel=1e-11, limit=200)
        for a, b in pairwise(np.sort(edges))
    ]
    value, error = np.sum(parts, axis=0)
    found = normalized_mloss(LeakyReLU(slope), k, sigma, eps=eps)
    assert error < 1e-10 * value
    assert_allclose(found, (1 - slope) * value, rtol=2e-10)


@pytest.mark.parametrize("ratio", RATIOS)
def test_a_large_floor_leaves_the_node_over_it(ratio):
    # D / (|f| + eps) = D / eps to relative order sigma / eps.
    found = normalized_mloss("relu", ratio, 1.0, eps=1e12)
    assert_allclose(found, expected_mloss("relu", ratio, 1.0) / 1e12, rtol=2e-11)


def test_dead_outputs_dominate_the_normalised_node():
    dead = expected_mloss("relu", 5.0, 1.0) / (2 * 1e-4)
    found = normalized_mloss("relu", 5.0, 1.0)
    assert dead < found < 1.01 * dead
    # What is left grows with log(1 / eps): t phi(0) / (2k) a factor e, t = 1/sqrt 2.
    rest = [
        normalized_mloss("relu", 5.0, 1.0, eps=e)
        - expected_mloss("relu", 5.0, 1.0) / (2 * e)
        for e in (1e-5, 1e-6)
    ]
    growth = np.log(10) / np.sqrt(2) / np.sqrt(2 * np.pi) / 10
    # To relative order eps log eps, and a difference that cancels to 1e-11 of `dead`.
    assert_allclose(rest[1] - rest[0], growth, rtol=1e-3)


def test_scale_leaves_the_normalised_node_alone():
    found = normalized_mloss("relu", 5.0, 1.0, eps=1e-2)
    assert_allclose(normalized_mloss("relu", 500.0, 100.0, eps=1.0), found, rtol=1e-13)


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ("not for 'gelu'", lambda: expected_layer_mloss("gelu", 2.0, 1.0, nodes=3)),
        ("not for 'gelu'", lambda: normalized_mloss("gelu", 2.0, 1.0)),
        ("nodes must be", lambda: expected_layer_mloss("relu", 2.0, 1.0, nodes=0)),
        ("nodes must be", lambda: layer_bounds("relu", 2.0, 1.0, nodes=2.5)),
        ("eps must be finite", lambda: normalized_mloss("relu", 2.0, 1.0, eps=0.0)),
        ("k must be finite", lambda: normalized_mloss("relu", -2.0, 1.0)),
    ],
)
def test_bad_input_is_named(words, call):
    with pytest.raises(ValueError, match=words):
        call()

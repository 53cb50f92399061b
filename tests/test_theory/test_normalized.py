"""The normalised node and layer against plain sampling, one another and limits."""

from itertools import pairwise

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.special import ndtr

from theory import LeakyReLU, expected_mloss
from theory.activations import NAMED
from theory.distribution import mloss_second_moment
from theory.layers.merged_output import output_square, output_zeros
from theory.layers.node import nodes_under
from theory.layers.normalized import estimated_normalized_mloss, normalized_mloss
from theory.layers.normalized_layer import (
    expected_normalized_layer_mloss,
    normalized_layer_bounds,
)
from theory.signed import phi

RATIOS = [0.1, 2.0, 1e3]
UNEQUAL = {"weights": [0.8, 0.2], "cov": [[1, -0.6], [-0.6, 4]]}


def sampled(f, k, sigma, *, shape, weights=(0.5, 0.5), cov=None):
    """D and |f(m)|, [*shape], from the definition."""
    rng, w = np.random.default_rng(20261122), np.asarray(weights)
    root = np.linalg.cholesky(np.eye(len(w)) if cov is None else np.asarray(cov))
    x = rng.uniform(-k, k, size=shape)
    h = x[..., None] + sigma * (rng.normal(size=(*shape, len(w))) @ root.T)
    return np.abs(f(h @ w) - f(h) @ w), np.abs(f(h @ w))


def assert_mean(sample, claim, *, sharp, error=0.0):
    """Within five standard errors, which for small eps few large values widen."""
    stderr = sample.std() / np.sqrt(sample.size)
    assert stderr <= sharp * claim, "too noisy to test"
    assert abs(sample.mean() - claim) <= 5 * np.hypot(stderr, error)


@pytest.mark.parametrize("slope", [0.0, 0.3, -0.5])
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("eps", [1e-8, 1e-4, 1.0])
def test_leaky_relu_against_its_own_quadrature(slope, ratio, eps):
    # m and half the difference are independent given x, of deviation t each.
    k, sigma = 0.3 * ratio, 0.3
    t = sigma / np.sqrt(2)

    def integrand(log_m):
        m = np.exp(log_m)
        gap = t * phi(m / t) - m * ndtr(-m / t)
        density = (ndtr((k - m) / t) - ndtr((-k - m) / t)) / (2 * k)
        return m * gap * density * (1 / (m + eps) + 1 / (abs(slope) * m + eps))

    log_t = np.log(t)
    edges = [np.log(eps) - 40, *(log_t + np.array([-18, -9, -4, -2, 0, 1, 2, 2.3]))]
    parts = [
        quad(integrand, a, b, epsabs=0, epsrel=1e-11, limit=200)
        for a, b in pairwise(np.sort(edges))
    ]
    value, error = np.sum(parts, axis=0)
    found = normalized_mloss(LeakyReLU(slope), k, sigma, eps=eps)
    assert error < 1e-10 * value
    assert_allclose(found, (1 - slope) * value, rtol=1e-9)


def test_softplus_against_mpmath():
    # E over m and half the difference, each N(0, t^2) about x, at 15 digits.
    k, sigma, eps = 1, mp.mpf(1) / 2, mp.mpf(1) / 10
    t = sigma / mp.sqrt(2)

    def ratio(m, d):
        gap = (mp.log1p(mp.exp(m + d)) + mp.log1p(mp.exp(m - d))) / 2
        output = mp.log1p(mp.exp(m))
        chance = mp.ncdf((m + k) / t) - mp.ncdf((m - k) / t)
        return (gap - output) / (output + eps) * chance / (2 * k) * mp.npdf(d, 0, t)

    with mp.workdps(15):
        top = 8 * t
        value = 2 * mp.quad(
            ratio,
            [-k - top, 0, k + top],
            [0, top],
            method="gauss-legendre",
            maxdegree=4,
        )
    found = normalized_mloss("softplus", 1.0, 0.5, eps=0.1)
    # Past eight deviations lies 1e-14 of it.
    assert_allclose(found, float(value), rtol=1e-10)


@pytest.mark.parametrize("name", ["gelu", "tanh", "silu", "hard_swish", "sigmoid"])
@pytest.mark.parametrize("law", [{}, UNEQUAL], ids=["paper", "unequal"])
@pytest.mark.parametrize("eps", [1e-4, 0.1])
def test_nodes_against_plain_sampling(name, law, eps):
    D, output = sampled(NAMED[name], 3.0, 0.8, shape=(1_000_000,), **law)
    claim = normalized_mloss(name, 3.0, 0.8, eps=eps, **law)
    assert_mean(D / (output + eps), claim, sharp=5e-2)


@pytest.mark.parametrize("name", ["relu", "gelu", "tanh"])
@pytest.mark.parametrize("eps", [1e-3, 0.1])
@pytest.mark.parametrize("q", [3, 8])
def test_many_sources_against_plain_sampling(name, eps, q):
    equal = np.full(q, 1 / q)
    D, output = sampled(NAMED[name], 3.0, 0.8, shape=(400_000,), weights=equal)
    found = estimated_normalized_mloss(name, 3.0, 0.8, eps=eps, q=q)
    assert found.error <= 1e-3 * found.value
    assert_mean(D / (output + eps), found.value, sharp=2e-2, error=found.error / 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["relu", "gelu", "tanh"])
@pytest.mark.parametrize("eps", [1e-4, 1.0])
def test_the_sampling_error_is_honest_over_seeds(name, eps):
    # Two of these three sources are one: a pair, whose value is known, is sampled.
    twins = {"q": 3, "weights": [0.5, 0.25, 0.25]}
    twins["cov"] = [[1, 0, 0], [0, 1, 1], [0, 1, 1]]
    exact = normalized_mloss(name, 3.0, 1.0, eps=eps)
    runs = [
        estimated_normalized_mloss(
            name, 3.0, 1.0, eps=eps, rtol=1e-2, seed=seed, **twins
        )
        for seed in range(40)
    ]
    off = np.array([(run.value - exact) / (run.error / 3) for run in runs])
    # 15 degrees of freedom: beyond three in 0.9 % of runs, five of 40 once in 60000.
    assert (np.abs(off) > 3).sum() < 5
    # Their mean square is 15 / 13, with a standard error over 40 runs of about 0.3.
    assert 0.2 < np.mean(off**2) < 2.6


def test_a_source_without_weight_does_not_count():
    law = {"q": 3, "weights": [0.5, 0.5, 0.0]}
    pair = normalized_mloss("gelu", 2.0, 1.0)
    assert_allclose(normalized_mloss("gelu", 2.0, 1.0, **law), pair, rtol=1e-13)
    found = estimated_normalized_mloss("gelu", 2.0, 1.0, **law)
    assert_allclose(found.value, pair, rtol=1e-13)
    assert found.error == 1e-8 * found.value


@pytest.mark.parametrize("name", ["relu", "gelu", "tanh"])
@pytest.mark.parametrize("ratio", RATIOS)
def test_a_large_floor_leaves_the_node_over_it(name, ratio):
    found = normalized_mloss(name, ratio, 1.0, eps=1e12)
    assert_allclose(found, expected_mloss(name, ratio, 1.0) / 1e12, rtol=1e-8)


def test_dead_outputs_dominate_the_normalised_node():
    dead = expected_mloss("relu", 5.0, 1.0) / (2 * 1e-4)
    found = normalized_mloss("relu", 5.0, 1.0)
    assert dead < found < 1.01 * dead
    # What is left grows with log(1 / eps): t phi(0) / (2k) a factor e, t = 1/sqrt 2.
    rest = [
        normalized_mloss("relu", 5.0, 1.0, eps=e)
        - expected_mloss("relu", 5.0, 1.0) / (2 * e)
        for e in (1e-4, 1e-5)
    ]
    growth = np.log(10) / np.sqrt(2) / np.sqrt(2 * np.pi) / 10
    # To relative order eps log eps, and a difference that cancels to 1e-3 of `dead`.
    assert_allclose(rest[1] - rest[0], growth, rtol=1e-2)


@settings(max_examples=20)
@given(eps=st.floats(1e-6, 10), factor=st.floats(1e-3, 1e3))
def test_scale_leaves_the_normalised_relu_alone(eps, factor):
    found = normalized_mloss("relu", 5.0, 1.0, eps=eps)
    scaled = normalized_mloss("relu", 5 * factor, factor, eps=eps * factor)
    assert_allclose(scaled, found, rtol=1e-8)


def test_zeros_of_the_outputs():
    assert output_zeros(NAMED["relu"]) == [0]
    assert output_zeros(NAMED["softplus"]) == []
    assert_allclose(output_zeros(NAMED["hard_swish"]), [-3, 0], atol=1e-12)
    shifted = nodes_under(
        lambda x: np.tanh(x) - 0.5, 1.0, 1.0, q=2, weights=None, cov=None
    )
    assert_allclose(output_zeros(shifted.f), [np.arctanh(0.5)], atol=1e-12)
    assert_allclose(output_zeros(LeakyReLU(1.0)), [0])


@pytest.mark.parametrize("name", ["relu", "tanh"])
@pytest.mark.parametrize("k", [0.1, 3.0, 1e6])
def test_the_mean_square_of_the_output(name, k):
    (node,) = nodes_under(name, k, 0.8, q=2, weights=None, cov=None)
    spread = 0.8**2 / 2
    if name == "relu":
        assert_allclose(output_square(node), (k**2 / 3 + spread) / 2, rtol=1e-12)
    else:
        _, output = sampled(np.tanh, k, 0.8, shape=(400_000,))
        assert_mean(output**2, output_square(node), sharp=1e-2)


@pytest.mark.parametrize("name", ["relu", "gelu", "tanh", "softplus", "elu"])
@pytest.mark.parametrize(("k", "sigma", "eps"), [(3.0, 0.8, 1e-4), (50.0, 1.0, 0.1)])
def test_a_normalised_layer_of_one_node_is_the_node(name, k, sigma, eps):
    node = normalized_mloss(name, k, sigma, eps=eps)
    found = expected_normalized_layer_mloss(name, k, sigma, nodes=1, eps=eps)
    assert_allclose(found, node, rtol=1e-8)
    lower, upper = normalized_layer_bounds(name, k, sigma, nodes=1, eps=eps)
    assert lower < node
    assert_allclose(upper, node, rtol=3e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["relu", "gelu", "tanh"])
@pytest.mark.parametrize(("nodes", "eps"), [(2, 0.1), (8, 1e-2), (200, 1e-4)])
@pytest.mark.parametrize("law", [{}, UNEQUAL], ids=["paper", "unequal"])
def test_normalised_layers_against_plain_sampling(name, nodes, eps, law):
    D, output = sampled(NAMED[name], 3.0, 0.8, shape=(1_000_000 // nodes, nodes), **law)
    ratio = np.linalg.norm(D, axis=1) / (np.linalg.norm(output, axis=1) + eps)
    claim = expected_normalized_layer_mloss(name, 3.0, 0.8, nodes=nodes, eps=eps, **law)
    assert_mean(ratio, claim, sharp=5e-2)
    lower, upper = normalized_layer_bounds(name, 3.0, 0.8, nodes=nodes, eps=eps, **law)
    assert lower < claim < upper


@pytest.mark.parametrize("name", ["relu", "gelu"])
def test_bounds_hold_for_nodes_that_are_one_and_the_same(name):
    # N / (M + eps) is then D / (|f| + eps / sqrt d).
    for d, eps in [(4, 1e-2), (100, 1e-4), (100, 1.0)]:
        one = normalized_mloss(name, 3.0, 0.8, eps=eps / np.sqrt(d))
        lower, upper = normalized_layer_bounds(name, 3.0, 0.8, nodes=d, eps=eps)
        assert lower <= one <= upper


def test_wide_normalised_layers_are_a_ratio_of_root_mean_squares():
    (node,) = nodes_under("gelu", 3.0, 0.8, q=2, weights=None, cov=None)
    limit = np.sqrt(mloss_second_moment("gelu", 3.0, 0.8) / output_square(node))
    found = expected_normalized_layer_mloss("gelu", 3.0, 0.8, nodes=10**6)
    # Norms of d squares spread by O(1/sqrt d), which moves their mean ratio by O(1/d).
    assert_allclose(found, limit, rtol=1e-5)


def test_unlike_nodes_are_a_layer():
    k, sigma = np.array([2.0, 2.0, 5.0]), np.array([1.0, 0.5, 1.0])
    D, output = sampled(NAMED["gelu"], k, sigma[:, None], shape=(300_000, 3))
    ratio = np.linalg.norm(D, axis=1) / (np.linalg.norm(output, axis=1) + 0.1)
    claim = expected_normalized_layer_mloss("gelu", k, sigma, eps=0.1)
    assert_mean(ratio, claim, sharp=1e-2)
    lower, upper = normalized_layer_bounds("gelu", k, sigma, eps=0.1)
    assert lower < claim < upper


def test_bounds_for_many_sources():
    lower, upper = normalized_layer_bounds("relu", 3.0, 0.8, nodes=8, eps=0.1, q=4)
    quarter = np.full(4, 0.25)
    D, output = sampled(NAMED["relu"], 3.0, 0.8, shape=(50_000, 8), weights=quarter)
    ratio = np.linalg.norm(D, axis=1) / (np.linalg.norm(output, axis=1) + 0.1)
    assert lower < ratio.mean() < upper


def test_without_a_gap_all_is_zero():
    shared = {"cov": np.ones((2, 2))}
    assert normalized_mloss("gelu", 2.0, 1.0, **shared) == 0
    for call in (expected_normalized_layer_mloss, normalized_layer_bounds):
        assert np.all(np.array(call("gelu", 2.0, 1.0, nodes=3, **shared)) == 0)


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ("eps must be finite", lambda: normalized_mloss("relu", 2.0, 1.0, eps=0.0)),
        (
            "eps must broadcast",
            lambda: normalized_mloss("relu", [2.0] * 2, 1, eps=[1] * 3),
        ),
        ("k must be finite", lambda: normalized_mloss("relu", -2.0, 1.0)),
        ("4 sources", lambda: normalized_mloss("relu", 2.0, 1.0, q=4)),
        ("rtol must", lambda: estimated_normalized_mloss("relu", 2.0, 1.0, rtol=2.0)),
        (
            "eps must be finite",
            lambda: normalized_layer_bounds("relu", 2.0, 1.0, nodes=2, eps=-1.0),
        ),
        (
            "4 sources",
            lambda: expected_normalized_layer_mloss("relu", 2.0, 1.0, nodes=2, q=4),
        ),
    ],
)
def test_bad_input_is_named(words, call):
    with pytest.raises(ValueError, match=words):
        call()


def test_what_was_not_reached_is_said():
    with pytest.raises(ArithmeticError, match="rtol = 1e-07 was not reached for 'gelu"):
        estimated_normalized_mloss("gelu", 2.0, 1.0, q=3, rtol=1e-7)

import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import chi2

from simulate import Estimate, estimate_mloss
from simulate.activations import gelu, relu
from simulate.estimators import BLOCK, block_sizes, node_mloss
from simulate.laws import pre_activation_law

NAMES = ("relu", "leaky_relu", "gelu", "gelu_tanh", "quick_gelu", "silu", "softplus")
EPS = np.finfo(np.float64).eps


def square(x):
    return x * x


@pytest.mark.parametrize(
    ("h", "weights", "expected"),
    [
        ([1.0, -1.0], [0.5, 0.5], 0.5),  # relu(0) - (1 + 0)/2
        ([1.0, -1.0], [0.75, 0.25], 0.25),  # relu(1/2) - 3/4
        ([3.0, -1.0], [0.5, 0.5], 0.5),  # relu(1) - 3/2
        ([3.0, 1.0], [0.5, 0.5], 0.0),
        ([2.0, 4.0, -8.0], [0.25, 0.5, 0.25], 2.0),  # relu(1/2) - 5/2
    ],
)
def test_definition_by_hand(h, weights, expected):
    column = np.array(h)[:, None]
    assert node_mloss(relu, column, weights=np.array(weights)) == [expected]


@pytest.mark.parametrize("n", [2, BLOCK // 3, 2 * BLOCK + 5])
def test_streaming_equals_one_shot(n):
    law = pre_activation_law(1.0, 0.5, q=3)
    streamed = estimate_mloss("gelu", 1.0, 0.5, q=3, n=n, rng=np.random.default_rng(7))
    rng = np.random.default_rng(7)
    h = np.concatenate(
        [law.sample(size, rng=rng) for size in block_sizes(n, law)], axis=1
    )
    d = node_mloss(gelu, h, weights=law.weights)
    # Pairwise sums of positive numbers: about log2(n) roundings.
    rtol = 2 * np.log2(2 * n) * EPS
    assert_allclose(streamed.value, d.mean(), rtol=rtol)
    assert_allclose(streamed.stderr, d.std(ddof=1) / np.sqrt(n), rtol=4 * rtol)
    assert streamed.n == n


@pytest.mark.parametrize(
    ("weights", "cov"),
    [
        (None, None),
        ([0.2, 0.3, 0.5], None),
        (None, [[1.0, 0.5, 0.0], [0.5, 2.0, -0.3], [0.0, -0.3, 0.7]]),
        ([0.6, 0.0, 0.4], [[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 6.0, 9.0]]),
    ],
)
def test_the_square_has_the_jensen_variance_as_its_mloss(weights, cov):
    """|m^2 - sum w h^2| = sum w (h - m)^2, whose mean is sum w C_ii - w' C w."""
    sigma = 0.3
    w = np.full(3, 1 / 3) if weights is None else np.array(weights)
    c = sigma**2 * (np.eye(3) if cov is None else np.array(cov))
    expected = w @ np.diag(c) - w @ c @ w
    rng = np.random.default_rng(11)
    found = estimate_mloss(
        square, 2.0, sigma, q=3, weights=weights, cov=cov, n=200_000, rng=rng
    )
    assert found.stderr < 0.005 * expected
    assert abs(found.value - expected) < 5 * found.stderr


def test_stderr_is_the_spread_of_independent_runs():
    runs = 500
    rng = np.random.default_rng(3)
    estimates = [estimate_mloss("relu", 1.0, 0.5, n=1000, rng=rng) for _ in range(runs)]
    spread = np.var([e.value for e in estimates], ddof=1)
    claimed = np.mean([e.stderr**2 for e in estimates])
    # One run in a million falls outside; the claim's own noise is a tenth of that.
    low, high = chi2.interval(1 - 1e-6, runs - 1)
    assert low < (runs - 1) * spread / claimed < high


def test_linear_activations_merge_without_loss():
    estimate = estimate_mloss(
        "identity",
        3.0,
        1.0,
        q=3,
        weights=[0.2, 0.3, 0.5],
        n=10_000,
        rng=np.random.default_rng(0),
    )
    assert estimate == Estimate(0.0, 0.0, 10_000)


@pytest.mark.parametrize("name", NAMES)
def test_one_model_merges_without_loss(name):
    rng = np.random.default_rng(0)
    estimate = estimate_mloss(name, 3.0, 1.0, q=1, n=1000, rng=rng)
    assert estimate == Estimate(0.0, 0.0, 1000)


def test_equal_generators_give_equal_estimates():
    first, second, other = (
        estimate_mloss("gelu", 1.0, 0.1, n=1000, rng=np.random.default_rng(seed))
        for seed in (5, 5, 6)
    )
    assert first == second
    assert first != other


def test_an_in_place_activation_is_the_same_function():
    def in_place(x):
        return np.maximum(x, 0.0, out=x)

    found, expected = (
        estimate_mloss(f, 1.0, 0.5, n=1000, rng=np.random.default_rng(0))
        for f in (in_place, "relu")
    )
    assert found == expected


def test_memory_is_flat_in_n():
    tracemalloc.start()
    try:
        estimate_mloss("relu", 1.0, 0.1, n=1_000_000, rng=np.random.default_rng(0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Fewer than eight arrays of one block; the million samples would take 24 MB.
    assert peak < 8 * BLOCK * np.dtype(np.float64).itemsize


def test_an_unknown_method_lists_the_known_ones():
    with pytest.raises(ValueError, match="method must be one of mc, got 'qmc'"):
        estimate_mloss(
            "relu", 1.0, 1.0, n=10, rng=np.random.default_rng(0), method="qmc"
        )


def test_one_sample_has_no_standard_error():
    with pytest.raises(ValueError, match="n must be at least 2, got 1"):
        estimate_mloss("relu", 1.0, 1.0, n=1, rng=np.random.default_rng(0))


def test_a_seed_is_not_a_generator():
    with pytest.raises(TypeError, match=r"rng must be a numpy\.random\.Generator"):
        estimate_mloss("relu", 1.0, 1.0, n=10, rng=0)


def test_the_weights_do_not_decide_q():
    with pytest.raises(ValueError, match=r"weights must have shape \(2,\) for q=2"):
        estimate_mloss(
            "relu",
            1.0,
            1.0,
            weights=[0.2, 0.3, 0.5],
            n=10,
            rng=np.random.default_rng(0),
        )

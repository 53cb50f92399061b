import tracemalloc

import numpy as np
import pytest
from relu_closed_form import closed_form

from simulate import Estimate, Gaussian, Laplace, estimate_mloss
from simulate.backends import NUMPY
from simulate.samplers import METHODS

NAMES = ("relu", "leaky_relu", "gelu", "gelu_tanh", "quick_gelu", "silu", "softplus")
COVS = {
    "identity": np.eye(3),
    "skewed": np.array([[1.0, 0.5, 0.0], [0.5, 2.0, -0.3], [0.0, -0.3, 0.7]]),
    "singular": np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 6.0, 9.0]]),
    "nearly common": np.eye(3) + 400.0,
}
WEIGHTS = np.array([0.2, 0.3, 0.5])
LEVEL = 1 - 1e-7  # of every interval here: 200 of them err 1 time in 50,000
SHARP = {"mc": 0.02, "antithetic": 0.02, "stratified": 0.02, "importance": 0.01}


def square(x):
    return x * x


def assert_within(estimate, claim, *, sharp):
    """The claim is in an interval that is narrow enough to have refuted it."""
    assert estimate.stderr <= sharp * claim, f"too noisy: {estimate} for {claim}"
    low, high = estimate.interval(LEVEL)
    assert low <= claim <= high, f"{estimate} against {claim}"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cov", COVS)
@pytest.mark.parametrize("k", [0.5, 4.0])
def test_relu_has_its_closed_form_as_its_mloss(method, cov, k):
    expected = closed_form(k, weights=WEIGHTS, cov=COVS[cov])
    found = estimate_mloss(
        "relu",
        k,
        1.0,
        q=3,
        weights=WEIGHTS,
        cov=COVS[cov],
        n=2**17,
        rng=np.random.default_rng(1),
        method=method,
    )
    assert_within(found, expected, sharp=SHARP.get(method, 0.005))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cov", COVS)
@pytest.mark.parametrize("law", [2.0, Gaussian(1.0), Laplace(1.0)], ids=repr)
def test_the_square_has_the_jensen_variance_as_its_mloss(method, cov, law):
    """|m^2 - sum w h^2| = sum w (h - m)^2, whose mean is sum w C_ii - w' C w."""
    sigma, c = 0.3, 0.09 * COVS[cov]
    expected = WEIGHTS @ np.diag(c) - WEIGHTS @ c @ WEIGHTS
    found = estimate_mloss(
        square,
        law,
        sigma,
        q=3,
        weights=WEIGHTS,
        cov=COVS[cov],
        n=2**16,
        rng=np.random.default_rng(11),
        method=method,
    )
    assert_within(found, expected, sharp=0.02)


@pytest.mark.parametrize("method", ["importance", "qmc"])
@pytest.mark.parametrize("ratio", [0.1, 10.0, 1e3, 1e6, 1e8])
@pytest.mark.parametrize("q", [2, 8])
def test_weights_keep_the_error_small_at_any_ratio(method, ratio, q):
    weights = np.full(q, 1 / q)
    # Where the closed form cancels, what it leaves out is exponentially small.
    exact = closed_form(ratio, weights=weights, cov=np.eye(q))
    expected = exact if ratio <= 10 else (1 - 1 / q) / (4 * ratio)
    found = estimate_mloss(
        "relu", ratio, 1.0, q=q, n=2**17, rng=np.random.default_rng(4), method=method
    )
    assert_within(found, expected, sharp=0.02 if ratio < 1 else 0.006)


@pytest.mark.parametrize("method", METHODS)
def test_linear_activations_merge_without_loss(method):
    estimate = estimate_mloss(
        "identity",
        3.0,
        1.0,
        q=3,
        weights=WEIGHTS,
        n=2**14,
        rng=np.random.default_rng(0),
        method=method,
    )
    assert (estimate.value, estimate.stderr, estimate.n) == (0.0, 0.0, 2**14)


@pytest.mark.parametrize("name", NAMES)
def test_one_model_merges_without_loss(name):
    rng = np.random.default_rng(0)
    estimate = estimate_mloss(name, 3.0, 1.0, q=1, n=1000, rng=rng)
    assert estimate == Estimate(0.0, 0.0, 1000, 999)


@pytest.mark.parametrize("method", METHODS)
def test_equal_generators_give_equal_estimates(method):
    first, second, other = (
        estimate_mloss(
            "gelu", 1.0, 0.1, n=1000, rng=np.random.default_rng(seed), method=method
        )
        for seed in (5, 5, 6)
    )
    assert first == second
    assert first != other


@pytest.mark.parametrize("method", METHODS)
def test_the_number_of_workers_changes_nothing(method):
    # Several chunks, the last of them short.
    one, two, three = (
        estimate_mloss(
            "relu",
            10.0,
            1.0,
            q=8,
            n=600_000,
            rng=np.random.default_rng(5),
            method=method,
            workers=workers,
        )
        for workers in (1, 2, 3)
    )
    assert one == two == three


def test_an_in_place_activation_is_the_same_function():
    def in_place(x):
        return np.maximum(x, 0.0, out=x)

    found, expected = (
        estimate_mloss(f, 1.0, 0.5, n=1000, rng=np.random.default_rng(0))
        for f in (in_place, "relu")
    )
    assert found == expected


@pytest.mark.parametrize("method", METHODS)
def test_memory_is_flat_in_n(method):
    def estimate(n):
        rng = np.random.default_rng(0)
        return estimate_mloss("relu", 1.0, 0.1, n=n, rng=rng, method=method)

    estimate(2**10)
    tracemalloc.start()
    try:
        estimate(2**20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A few dozen arrays of one block at most; the million samples would take 24 MB.
    assert peak < 32 * NUMPY.block * np.dtype(np.float64).itemsize

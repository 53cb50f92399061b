"""The one entry: what it accepts, what it refuses, and exact relations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from strategies import EPS, error_laws, model_counts, ratios, scales, slopes

from theory import Activation, LeakyReLU, expected_mloss


@given(slope=slopes, ratio=ratios, q=model_counts)
def test_leaky_relu_is_relu_times_one_minus_the_slope(slope, ratio, q):
    leaky = expected_mloss(LeakyReLU(slope), ratio, 1.0, q=q)
    relu = expected_mloss("relu", ratio, 1.0, q=q)
    assert_allclose(leaky, abs(1 - slope) * relu, rtol=2 * EPS, atol=0)


@given(c=scales, ratio=ratios)
def test_relu_is_homogeneous(c, ratio):
    # k / sigma is rounded once on each side, the result a few times more.
    scaled = expected_mloss("relu", c * ratio, c)
    assert_allclose(scaled, c * expected_mloss("relu", ratio, 1.0), rtol=16 * EPS)


@given(law=error_laws(), ratio=ratios, order=st.randoms(use_true_random=False))
def test_sources_may_be_permuted(law, ratio, order):
    weights, cov = law
    shuffled = list(range(len(weights)))
    order.shuffle(shuffled)
    found = expected_mloss("relu", ratio, 1.0, q=len(weights), weights=weights, cov=cov)
    permuted = expected_mloss(
        "relu",
        ratio,
        1.0,
        q=len(weights),
        weights=weights[shuffled],
        cov=cov[np.ix_(shuffled, shuffled)],
    )
    # The sums run in another order: eps of their largest term, v_i / (4k).
    rounding = 8 * len(weights) ** 2 * EPS * np.abs(cov).max() / (4 * ratio)
    assert_allclose(found, permuted, rtol=1e-12, atol=rounding * max(1, 1 / ratio))


@pytest.mark.parametrize("activation", ["relu", "gelu", "leaky_relu"])
def test_a_source_of_weight_zero_does_not_count(activation):
    pair = expected_mloss(activation, 3.0, 1.0)
    trio = expected_mloss(activation, 3.0, 1.0, q=3, weights=[0.5, 0, 0.5])
    assert_array_equal(pair, trio)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "tanh", "identity"])
def test_nothing_is_lost_by_one_model_or_by_one_shared_error(activation):
    assert expected_mloss(activation, 3.0, 1.0, q=1) == 0
    shared = expected_mloss(activation, [3.0, 5.0], 1.0, cov=np.ones((2, 2)))
    assert_array_equal(shared, [0, 0])


def test_identity_loses_nothing():
    assert expected_mloss("identity", 3.0, 1.0, q=5) == 0


def test_monotone_in_k_and_sigma():
    k, sigma = np.geomspace(0.01, 1e6, 40)[:, None], np.geomspace(1e-3, 1e3, 30)
    for activation in ("relu", "leaky_relu", "gelu"):
        table = expected_mloss(activation, k, sigma)
        assert (np.diff(table, axis=1) > 0).all()
        assert (np.diff(table, axis=0) < 0).all()


BAD = {
    "k must be finite and > 0": {"k": 0.0},
    "k must be finite and > 0, got -1": {"k": [1.0, -1.0]},
    "sigma must be finite and > 0, got nan": {"sigma": float("nan")},
    "sigma must be finite and > 0, got inf": {"sigma": float("inf")},
    "sigma must be real numbers": {"sigma": "wide"},
    "k and sigma must broadcast": {"k": [1.0, 2.0], "sigma": [1.0, 2.0, 3.0]},
    "q counts the source models": {"q": 0},
    "whole number >= 1, got 2.5": {"q": 2.5},
    "weights must sum to 1": {"weights": [0.5, 0.6]},
    "weights must be >= 0": {"weights": [1.5, -0.5]},
    "weights must be finite": {"weights": [float("nan"), 1.0]},
    r"weights must have shape \[2\]": {"weights": [0.2, 0.3, 0.5]},
    r"cov must have shape \[2, 2\]": {"cov": [1.0, 1.0]},
    "cov must be symmetric": {"cov": [[1, 0.5], [0, 1]]},
    "cov must be positive semi-definite": {"cov": [[1, 2], [2, 1]]},
    "unknown activation 'swish'; known: relu": {"activation": "swish"},
    "no exact expectation is known here for activation 'silu'": {
        "activation": "silu",
        "q": 3,
    },
    "both ways, with 3 sources": {"activation": "gelu", "q": 3},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named(message):
    call = {"activation": "relu", "k": 2.0, "sigma": 1.0} | BAD[message]
    with pytest.raises(ValueError, match=message):
        expected_mloss(call.pop("activation"), call.pop("k"), call.pop("sigma"), **call)


def test_an_activation_is_a_name_or_an_activation():
    with pytest.raises(TypeError, match=r"a name, a theory\.Activation or a function"):
        expected_mloss(3, 1.0, 1.0)
    with pytest.raises(ValueError, match="negative_slope must be finite"):
        LeakyReLU(float("nan"))
    assert isinstance(LeakyReLU(0.1), Activation)


@pytest.mark.parametrize("activation", ["gelu", "silu", "tanh", "relu6", "softplus"])
def test_limits_at_the_ends_of_float64(activation):
    # A narrow range is one point, a small error enters squared.
    narrow = expected_mloss(activation, [1e-6, 1e-12, 1e-200], 1.0)
    assert_allclose(narrow, narrow[0], rtol=1e-9)
    small = expected_mloss(activation, 10.0, np.array([1e-6, 1e-12, 1e-100]))
    assert_allclose(
        small / np.array([1e-12, 1e-24, 1e-200]), small[0] / 1e-12, rtol=1e-9
    )


def test_errors_that_dwarf_the_activation_are_refused():
    with pytest.raises(ValueError, match=r"sigma must be at most 1e\+08"):
        expected_mloss("gelu", 1.0, 1e300)

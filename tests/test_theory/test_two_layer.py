"""Two-layer gaps against networks sampled from their definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.stats import norm
from strategies import EPS, model_counts, ratios, scales

from theory import expected_mloss
from theory.two_layer import (
    linear_gap_second_moment,
    relu_gap_moments,
    relu_variance,
)


def assert_mean(sample, claim, sharp=0.02):
    """Within five standard errors, and those below `sharp` of the claim."""
    stderr = sample.std() / np.sqrt(len(sample))
    assert stderr < sharp * abs(claim), "too noisy to test"
    assert abs(sample.mean() - claim) < 5 * stderr


@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.7, 0.2, 0.1]])
def test_linear_networks_from_their_definition(weights):
    rng = np.random.default_rng(12)
    w, n, hidden, outputs = np.array(weights), 100_000, 3, 2
    base_A, base_B = rng.normal(size=(hidden, 4)), rng.normal(size=(outputs, hidden))
    x = rng.normal(size=4)
    A = base_A + 0.3 * rng.normal(size=(n, len(w), hidden, 4))
    B = base_B + 0.5 * rng.normal(size=(n, len(w), outputs, hidden))
    merged = np.einsum("q,nqoh->noh", w, B) @ np.einsum("q,nqhi->nhi", w, A) @ x
    gap = merged - np.einsum("q,nqo->no", w, (B @ A) @ x)
    claim = linear_gap_second_moment(
        np.linalg.norm(x),
        hidden=hidden,
        outputs=outputs,
        inner_sigma=0.3,
        outer_sigma=0.5,
        q=len(w),
        weights=w,
    )
    assert_mean((gap**2).sum(axis=1), claim)


@given(q=model_counts, sigma=scales)
def test_equal_weights_leave_q_less_one_over_q_squared(q, sigma):
    found = linear_gap_second_moment(
        2.0, hidden=5, outputs=3, inner_sigma=sigma, outer_sigma=0.5, q=q
    )
    # The q^2 entries of P are each rounded twice.
    expected = 15 * sigma**2 * (q - 1) / q**2
    assert_allclose(found, expected, rtol=8 * q * EPS, atol=1e-30 * sigma**2)


def sampled(*, n, k, sigma, readout, readout_sigma):
    """Node inputs h and readouts B of the two sources, each [2, n]."""
    rng = np.random.default_rng(20250612)
    h = rng.uniform(-k, k, size=n) + sigma * rng.normal(size=(2, n))
    return h, readout + readout_sigma * rng.normal(size=(2, n))


def output(B, h):
    return B * np.maximum(h, 0)


def gap_of(B, h):
    return output(B.mean(0), h.mean(0)) - output(B, h).mean(0)


def second_order(B, h):
    """-1/2 mean_i D^2 f [delta_i, delta_i] at the mean, by second differences.

    f is bilinear on each side of the kink, so a difference that stays on one side is
    the derivative, whatever its step.
    """
    total = np.zeros(h.shape[1])
    centre_B, centre_h = B.mean(0), h.mean(0)
    for own_B, own_h in zip(B, h, strict=True):
        dB, dh = own_B - centre_B, own_h - centre_h
        step = 0.5 * np.minimum(1, np.abs(centre_h / dh))
        ahead = output(centre_B + step * dB, centre_h + step * dh)
        behind = output(centre_B - step * dB, centre_h - step * dh)
        total += (ahead + behind - 2 * output(centre_B, centre_h)) / step**2
    return -total / 4


@pytest.mark.parametrize(
    "law",
    [
        {"k": 2.0, "sigma": 0.7, "readout": 1.5, "readout_sigma": 0.4},
        {"k": 0.5, "sigma": 1.0, "readout": -0.5, "readout_sigma": 1.0},
        {"k": 10.0, "sigma": 1.0, "readout": 3.0, "readout_sigma": 0.5},
    ],
)
def test_relu_networks_from_their_definition(law):
    h, B = sampled(n=1_000_000, **law)
    gap, found = gap_of(B, h), relu_gap_moments(**law)
    D = np.maximum(h, 0).mean(0) - np.maximum(h.mean(0), 0)
    assert_mean(gap, found.mean)
    assert_mean(gap**2, found.second_moment)
    assert_mean((B.mean(0) * D) ** 2, found.mloss)
    assert_mean((gap + B.mean(0) * D) ** 2, found.interaction)
    on = h.mean(0) > 0
    assert_mean(((B[0] - B[1]) * (h[0] - h[1]) / 4 * on) ** 2, found.second_order)
    odd_one = np.where(np.sign(h[0]) != np.sign(h.mean(0)), B[0], B[1])
    assert_mean((odd_one * D) ** 2, found.remainder)


def test_the_second_order_functional_misses_the_gap_by_mloss_alone():
    h, B = sampled(n=1000, k=1.0, sigma=1.0, readout=1.5, readout_sigma=0.4)
    D = np.maximum(h, 0).mean(0) - np.maximum(h.mean(0), 0)
    odd_one = np.where(np.sign(h[0]) != np.sign(h.mean(0)), B[0], B[1])
    functional, on = second_order(B, h), h.mean(0) > 0
    # Second differences divide rounding of order eps by step^2 >= 1e-7 here.
    tolerance = 64 * EPS / (0.5 * np.abs(h.mean(0) / (h[0] - h[1]) * 2)).min() ** 2
    assert tolerance < 1e-6
    closed = -(B[0] - B[1]) * (h[0] - h[1]) / 4 * on
    assert_allclose(functional, closed, rtol=0, atol=tolerance)
    assert_allclose(gap_of(B, h) - closed, -odd_one * D, rtol=0, atol=32 * EPS)
    assert (D > 0).mean() > 0.2


@pytest.mark.parametrize("z", [1e-3, 0.3, 1.0, 4.0, 30.0])
def test_relu_variance_from_its_definition(z):
    def given_x(y):
        mean = y * norm.cdf(y) + norm.pdf(y)
        return (1 + y**2) * norm.cdf(y) + y * norm.pdf(y) - mean**2

    # Far above the kink the difference of squares cancels by y^2; there it is 1.
    top = min(z, 9.0)
    area, error = quad(given_x, -top, top, epsabs=1e-13, epsrel=1e-13)
    expected = 0.09 * (area + (z - top)) / (2 * z)
    found = relu_variance(0.3 * z, 0.3)
    assert_allclose(found, expected, rtol=1e-13 + error / area, atol=0)


def test_relu_variance_in_its_limits():
    k = np.array([1e8, 1e-8])
    limits = [0.5 - 1e-8 / (3 * np.sqrt(np.pi)), (1 - 1 / np.pi) / 2]
    assert_allclose(relu_variance(k, 1.0), limits, rtol=8 * EPS)


@given(ratio=ratios, readout=st.floats(-3, 3), t=scales)
def test_the_parts_of_the_relu_gap_fit_together(ratio, readout, t):
    found = relu_gap_moments(ratio, 1.0, readout=readout, readout_sigma=t)
    assert found.mean == -readout * expected_mloss("relu", ratio, 1.0)
    assert found.mean**2 <= found.second_moment
    # ||second order|| and ||gap|| differ by ||remainder|| at most.
    roots = np.sqrt([found.second_moment, found.second_order, found.remainder])
    assert abs(roots[0] - roots[1]) <= roots[2] * (1 + 1e-9) + 8 * EPS * roots[1]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"hidden": 0}, "hidden must be a count"),
        ({"outputs": -1}, "outputs must be a count"),
        ({"inner_sigma": 0.0}, "inner_sigma must be finite"),
        ({"outer_sigma": np.inf}, "outer_sigma must be finite"),
        ({"weights": [0.5, 0.6]}, "weights must sum to 1"),
    ],
)
def test_bad_input_to_the_linear_gap_is_named(given, words):
    call = {"hidden": 1, "outputs": 1, "inner_sigma": 1.0, "outer_sigma": 1.0} | given
    with pytest.raises(ValueError, match=words):
        linear_gap_second_moment(1.0, **call)


def test_bad_input_to_the_relu_gap_is_named():
    with pytest.raises(ValueError, match="readout_sigma must be finite"):
        relu_gap_moments(1.0, 1.0, readout=1.0, readout_sigma=-1.0)
    with pytest.raises(ValueError, match="readout must be finite"):
        relu_gap_moments(1.0, 1.0, readout=np.nan, readout_sigma=1.0)

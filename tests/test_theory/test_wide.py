"""Wide random networks: where the limit can be summed by hand or by another route."""

from math import comb, pi, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from strategies import EPS

from theory import LeakyReLU
from theory.two_layer import linear_gap_second_moment
from theory.wide import wide_merge

SMOOTH = ["gelu", "gelu_tanh", "quick_gelu", "silu", "softplus", "mish", "tanh"]
steps = st.floats(0.01, 1.0)
depths = st.integers(1, 8)
counts = st.integers(2, 6)


@given(sigma=steps, depth=depths, q=counts)
def test_a_linear_network_has_one_term_for_every_set_of_layers(sigma, depth, q):
    n = depth + 1
    expected = sum(
        comb(n, j) * (1 / q - q**-j) * sigma ** (2 * j) for j in range(2, n + 1)
    )
    gap = wide_merge("identity", sigma, depth=depth, q=q).gap
    # A few roundings a layer, of covariances that are at most (1 + sigma^2)^n.
    assert_allclose(gap, expected, rtol=0, atol=16 * n * EPS * (1 + sigma**2) ** n)


@given(sigma=steps, q=counts)
def test_two_linear_layers_agree_with_their_covariance(sigma, q):
    hidden, outputs, inputs = 7, 3, 5
    total = linear_gap_second_moment(
        sqrt(inputs),
        hidden=hidden,
        outputs=outputs,
        inner_sigma=sigma / sqrt(inputs),
        outer_sigma=sigma / sqrt(hidden),
        q=q,
    )
    gap = wide_merge("identity", sigma, depth=1, q=q).gap
    assert_allclose(gap, total / outputs, rtol=0, atol=64 * EPS * (1 + sigma**2) ** 2)


def test_the_first_layer_moves_by_sigma():
    wide = wide_merge("gelu", 0.3, depth=1, q=4)
    assert_allclose(wide.common, [1.0], rtol=EPS)
    assert_allclose(wide.error, [0.09], rtol=16 * EPS)
    assert_allclose(wide.jensen_variance, [0.0675], rtol=16 * EPS)


@pytest.mark.parametrize("name", SMOOTH)
def test_the_gap_of_a_smooth_network_is_of_second_order(name):
    small, large = (wide_merge(name, s, depth=3).gap for s in (0.005, 0.01))
    # The next order is tens of sigma^2; rounding is 1e-14 of 1e-10.
    assert_allclose(large / small, 16, rtol=5e-3)


@pytest.mark.parametrize("depth", [1, 4, 16])
def test_the_gap_of_relu_starts_as_sigma_to_the_three_halves(depth):
    r"""2 sum_l E[D_l^2], E[D^2] = V^(3/2) / (3 pi), V_l = l sigma^2 / 2."""
    sigma = 1e-4
    layers = np.arange(1, depth + 1)
    first = 2 / (3 * pi) * (layers / 2) ** 1.5 * sigma**3
    gap = wide_merge("relu", sigma, depth=depth).gap
    # Relative size of what follows: interaction, sigma depth^2 / depth^(5/2) and more.
    assert_allclose(gap, first.sum(), rtol=50 * sigma)


@pytest.mark.parametrize("name", SMOOTH)
def test_the_quadrature_has_converged(name, monkeypatch):
    found = [wide_merge(name, s, depth=4).gap for s in (0.1, 0.7)]
    finer = np.arange(-200, 201) / 20
    monkeypatch.setattr("theory.wide._NODES", finer)
    monkeypatch.setattr(
        "theory.wide._WEIGHTS", np.exp(-(finer**2) / 2) / sqrt(800 * pi)
    )
    again = [wide_merge(name, s, depth=4).gap for s in (0.1, 0.7)]
    assert_allclose(found, again, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("sigma", [0.01, 0.3, 1.0, 30.0])
def test_relu_has_the_arc_cosine_kernel(sigma):
    """2 E relu(u) relu(v) = |u||v| (sin t + (pi - t) cos t) / pi (Cho, Saul 2009)."""
    square = 1 + sigma**2
    angle = np.arccos(1 / square)
    expected = square / pi * (np.sin(angle) + (pi - angle) * np.cos(angle))
    wide = wide_merge("relu", sigma, depth=2)
    assert_allclose(wide.common, [1.0, expected], rtol=64 * EPS)
    # The difference of two numbers of about (1 + sigma^2)^2.
    error = [sigma**2, square**2 - expected]
    assert_allclose(wide.error, error, rtol=0, atol=64 * EPS * square**2)


def test_leaky_relu_lies_between_relu_and_a_line():
    """u = relu(u) - relu(-u): slope a has (1 - a)^2 of the even part, as 1 + a^2."""
    slope, sigma = 0.4, 0.3
    relu, leaky, line = (
        wide_merge(f, sigma, depth=2)
        for f in (LeakyReLU(0), LeakyReLU(slope), "identity")
    )
    mixed = ((1 - slope) ** 2 * relu.common + 2 * slope * line.common) / (1 + slope**2)
    assert_allclose(leaky.common[1], mixed[1], rtol=64 * EPS)


def test_a_source_without_weight_does_not_count():
    two = wide_merge("gelu", 0.2, depth=3)
    three = wide_merge("gelu", 0.2, depth=3, q=3, weights=[0.5, 0.0, 0.5])
    assert_allclose(three.gap, two.gap, rtol=0, atol=1e-14)
    assert_allclose(three.jensen_variance, two.jensen_variance, rtol=1e-14)


def test_the_last_biases_take_no_part_in_a_linear_gap():
    """Of the second layer only the weights do, and they have the rest of the share."""
    gap = wide_merge("identity", 0.1, depth=1, bias_share=0.75).gap
    # Rounding of covariances of about 1.
    assert_allclose(gap, 0.25 * 0.1**4 / 4, rtol=0, atol=32 * EPS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "relu6"}, "'relu6' has kinks"),
        ({"sigma": 0.0}, "sigma must be finite and > 0"),
        ({"sigma": 3.0}, "sigma is too large"),
        ({"depth": 0}, "depth counts hidden layers and must be >= 1, got 0"),
        ({"q": 1}, "q must be at least 2"),
        ({"weights": [0.5, 0.6]}, "weights must sum to 1"),
        ({"bias_share": 1.0}, r"bias_share must be in \[0, 1\), got 1.0"),
    ],
)
def test_what_has_no_limit_here_is_refused(change, message):
    arguments = {"activation": "gelu", "sigma": 0.1, "depth": 4} | change
    with pytest.raises(ValueError, match=message):
        wide_merge(arguments.pop("activation"), arguments.pop("sigma"), **arguments)

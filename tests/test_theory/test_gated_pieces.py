"""The pieces of the gated quadrature: means, rows, small moves."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.special import ndtr
from strategies import EPS

from theory.activations import NAMED
from theory.gated.gap import gate_moves
from theory.gated.means import mean_absolute, mean_product
from theory.gated.rows import integrate_rows


def folded(y):
    """E|y + z|."""
    return y * (2 * ndtr(y) - 1) + np.sqrt(2 / np.pi) * np.exp(-(y**2) / 2)


@pytest.mark.parametrize("centre", [0.0, 0.3, -5.0, 40.0])
@pytest.mark.parametrize("half_width", [1e-9, 0.03, 0.0499, 0.0501, 1.0, 30.0])
@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e20])
def test_the_mean_over_a_range_and_a_gaussian(centre, half_width, scale):
    def density(t):
        return folded(centre + t) / (2 * half_width)

    turn = [t for t in (-centre, -centre - 4, -centre + 4) if abs(t) < half_width]
    claim, error = quad(
        density, -half_width, half_width, points=turn or None, epsabs=0, epsrel=1e-13
    )
    arrays = (np.array([scale * a]) for a in (centre, half_width, 1.0))
    assert_allclose(
        mean_absolute(*arrays), scale * claim, rtol=1e-13 + 2 * error / claim
    )


def test_means_without_a_range_or_a_gaussian():
    centre, width, deviation = np.array(
        [[3.0, 0.0, 0.0], [-3.0, 5.0, 0.0], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0]]
    ).T
    # |c|; (c^2 + h^2) / (2h); a Gaussian alone; nothing.
    expected = [3.0, 34 / 10, 2 * np.sqrt(2 / np.pi), 0.0]
    assert_allclose(mean_absolute(centre, width, deviation), expected, rtol=4 * EPS)


@pytest.mark.parametrize("r", [-1.0, -0.4, 0.0, 0.7, 1.0])
def test_the_mean_product_is_an_angle_s(r):
    # z = R cos t and z' = R cos(t - a) with cos a = r, t uniform and E R^2 = 2.
    a = np.arccos(r)

    def product(t):
        return abs(np.cos(t) * np.cos(t - a)) / np.pi

    zeros = sorted({np.pi / 2, (a + np.pi / 2) % np.pi})
    total, error = quad(product, 0, np.pi, points=zeros)
    assert_allclose(mean_product(r), 2 * total, rtol=2 * error + 16 * EPS)


@pytest.mark.parametrize("kink", [0.003, 0.3, 0.9999])
@pytest.mark.parametrize("tolerance", [1e-5, 1e-10])
def test_a_kink_is_seen_even_at_the_end_of_a_panel(kink, tolerance):
    # Gauss's nodes miss one within 0.6 % of an end, on a panel and on its halves.
    (value,), (error,) = integrate_rows(
        lambda _, x: np.abs(x - kink), np.array([[0.0, 1.0]]), tolerance=tolerance
    )
    exact = (kink**2 + (1 - kink) ** 2) / 2
    assert abs(value - exact) <= error + 2e-13
    assert error <= 4 * tolerance


def test_rows_are_integrated_by_their_own_edges():
    edges = np.array([[0.0, 1.0, 1.0], [2.0, 0.0, 0.5]])
    value, _ = integrate_rows(
        lambda row, x: (row[:, None] + 1) * x**2, edges, tolerance=1e-12
    )
    # The nodes are moved in by 1e-13.
    assert_allclose(value, [1 / 3, 16 / 3], rtol=2e-13)


@pytest.mark.parametrize("gate", ["silu", "hard_swish", "relu"])
def test_small_moves_keep_their_digits(gate):
    f, weights = NAMED[gate], np.array([0.25, 0.75])
    m = np.array([[-3.0 - 2**-9, -1.0, -(2.0**-10), 0.5, 3.0 - 2**-10, 50.0]])
    departure = np.array([[3.0, -1.0]]) * 2**-9
    rises, gap = gate_moves(f, m, departure, weights)
    wide = f(m[..., None] + departure[:, None, :]) - f(m)[..., None]
    # A plain difference is good to the rounding of f, up to 50 here.
    assert_allclose(rises, wide, rtol=0, atol=100 * EPS)
    assert_allclose(gap, wide @ weights, rtol=0, atol=100 * EPS)
    assert gap[0, -1] == 0
    # Halving the departures of a smooth f quarters S, but for its third order.
    halved = gate_moves(f, m[:, 1:2], departure / 2, weights)[1]
    assert_allclose(4 * halved, gap[:, 1:2], rtol=2**-9, atol=0)

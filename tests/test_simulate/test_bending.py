import numpy as np
import pytest
from numpy.testing import assert_allclose

from simulate.activations import KNOWN
from simulate.backends import NUMPY
from simulate.bending import bending, change_of_slope

EPS = np.finfo(np.float64).eps


def found(f, reach, scale=1.0):
    return bending(f, np.ones_like, low=-reach, high=reach, scale=scale)


@pytest.mark.parametrize("reach", [3.0, 1e3, 1e6, 1e8])
@pytest.mark.parametrize("name", ["relu", "leaky_relu", "tanh", "gelu", "selu"])
def test_bends_near_zero_are_found_in_any_range(name, reach):
    ends = found(KNOWN[name], reach).quantile(np.array([0.01, 0.99]), NUMPY)
    assert np.abs(ends).max() < 12.0


@pytest.mark.parametrize("at", [-712.3, 1e-3, 5.0, 999.0])
def test_a_kink_is_found_wherever_it_is(at):
    ends = found(lambda x: np.maximum(x - at, 0), 1e3)
    low, high = ends.quantile(np.array([0.001, 0.999]), NUMPY)
    assert at - 0.5 < low < high < at + 0.5


def test_kinks_share_as_their_slopes_change():
    def f(x):
        return np.maximum(x + 500, 0) + 3 * np.maximum(x - 200, 0)

    below = found(f, 1e3).below(np.array([-600.0, -400.0, 100.0, 300.0]), NUMPY)
    # A panel's second differences split a kink's slope exactly, up to rounding.
    assert_allclose(below, [0.0, 0.25, 0.25, 1.0], atol=1e-9)


def test_a_step_far_away_is_not_lost_beside_a_kink():
    def f(x):
        return np.maximum(x - 5, 0) + np.tanh(x + 300)

    below = found(f, 1e3).below(np.array([-310.0, -290.0]), NUMPY)
    # The slope changes by 2 there and by 1 at the kink.
    assert below[1] - below[0] == pytest.approx(2 / 3, abs=0.1)


@pytest.mark.parametrize("slope", [0.0, 1.0, 0.01, -3.7])
@pytest.mark.parametrize("reach", [1.0, 1e8])
def test_a_line_has_no_bends(slope, reach):
    assert found(lambda x: slope * x + 0.3, reach) is None


def test_second_differences_give_the_total_variation_of_a_parabola():
    left = np.array([0.0, 2.0])
    change = change_of_slope(np.square, left, left + 1.0)
    assert_allclose(change, 2.0, rtol=64 * EPS)


def test_quantiles_and_shares_are_inverse():
    at = found(KNOWN["gelu"], 10.0)
    t = np.linspace(0.001, 0.999, 500)
    # Slopes of the two maps multiply to 1, and the steepest is some thousand.
    assert_allclose(at.below(at.quantile(t, NUMPY), NUMPY), t, rtol=0, atol=1e-12)
    assert at.below(np.array([-11.0, 11.0]), NUMPY).tolist() == [0.0, 1.0]

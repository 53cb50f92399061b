"""GELU's second difference: its root as a curve, and the integral of its tail."""

import numpy as np
import pytest
from gelu_reference import second_difference
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.optimize import brentq

from theory.gelu_difference import right_root, tail_integral

WEIGHTS = (0.5, 0.3, 0.95, 0.01)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_root_curve_follows_the_root(weight, sign):
    weights = np.array([weight, 1 - weight])
    curve = right_root(weights, sign=sign, top=30.0)
    rng = np.random.default_rng(0)
    # Between the points that the curve was drawn through.
    u = sign * np.append(10 ** rng.uniform(-2, 1, 40), rng.uniform(0, 30, 40))
    found = [
        brentq(second_difference, 0, 2 + abs(x), args=(x, *weights), xtol=1e-13)
        for x in u
    ]
    assert_allclose(curve(u), found, rtol=0, atol=1e-7)


def test_root_is_the_arm_where_the_other_argument_is_far():
    weights = np.array([0.5, 0.5])
    curve = right_root(weights, sign=1, top=1e6)
    u = np.array([20.0, 1e3, 1e6])
    # The excess falls like the Gaussian tail: below 1e-14 past an arm of 8.5.
    assert_allclose(curve(u), u / 2, rtol=0, atol=1e-8)


@pytest.mark.parametrize("u", [-4.0, -0.3, 0.05, 0.5, 2.0])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_tail_integral_is_the_integral_of_the_difference(weight, u):
    weights = np.array([weight, 1 - weight])
    (start,) = right_root(weights, sign=int(np.sign(u)), top=5.0)(np.array([u]))
    for m in (start, start + 1.5):
        area, error = quad(
            lambda m: float(second_difference(m, u, *weights)),
            m,
            m + 12,
            epsabs=1e-15,
            epsrel=1e-12,
        )
        found = tail_integral(np.array([m]), np.array([u]), weights)
        # Both differences lose eps of f over w_1 w_2 u^2.
        rounding = 1e-15 / (weights.prod() * min(u**2, 1))
        assert_allclose(found, -area, rtol=1e-11 + rounding, atol=2 * error)


def test_small_and_large_differences_meet():
    weights = np.array([0.4, 0.6])
    u = np.array([0.1, np.nextafter(0.1, 1)])  # the last mean, the first difference
    m = np.linspace(0.5, 4, 15)[:, None] + np.zeros(2)
    mean, difference = tail_integral(m, u, weights).T
    # Q is of the order of w_1 w_2 u^2 f' / 2, about 1e-3, and f of order 1.
    assert_allclose(mean, difference, rtol=1e-12, atol=1e-15)

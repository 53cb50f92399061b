"""Each activation's derivative, inflections and slopes are those of its function."""

import mpmath as mp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from theory.activations import NAMED

DIGITS = 40
SELU = mp.mpf("1.0507009873554805"), mp.mpf("1.6732632423543772")


def _sigmoid(x):
    return 1 / (1 + mp.exp(-x))


FUNCTIONS = {
    "relu": lambda x: max(x, 0),
    "prelu": lambda x: x if x > 0 else x / 4,
    "relu6": lambda x: min(max(x, 0), 6),
    "hard_swish": lambda x: x * min(max(x + 3, 0), 6) / 6,
    "elu": lambda x: x if x > 0 else mp.expm1(x),
    "selu": lambda x: SELU[0] * (x if x > 0 else SELU[1] * mp.expm1(x)),
    "sigmoid": lambda x: _sigmoid(x),
    "leaky_relu": lambda x: x if x > 0 else x / 100,
    "gelu": lambda x: x * mp.ncdf(x),
    "gelu_tanh": lambda x: (
        x / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3)))
    ),
    "quick_gelu": lambda x: x * _sigmoid(mp.mpf("1.702") * x),
    "silu": lambda x: x * _sigmoid(x),
    "softplus": lambda x: mp.log1p(mp.exp(x)),
    "mish": lambda x: x * mp.tanh(mp.log1p(mp.exp(x))),
    "tanh": mp.tanh,
    "identity": lambda x: x,
}
POINTS = np.array([-30.0, -5.0, -1.3, -0.2, 0.3, 1.1, 4.0, 30.0])


@pytest.mark.parametrize("name", NAMED)
def test_function_and_derivative(name):
    f, reference = NAMED[name], FUNCTIONS[name]
    with mp.workdps(DIGITS):
        value = [float(reference(mp.mpf(float(x)))) for x in POINTS]
        slope = [float(mp.diff(reference, mp.mpf(float(x)))) for x in POINTS]
        bend = [float(mp.diff(reference, mp.mpf(float(x)), 2)) for x in POINTS]
    # Cancellation in 1 - tanh(x)^2 costs an absolute eps or two.
    assert_allclose(f(POINTS), value, rtol=1e-14, atol=1e-15)
    assert_allclose(f.derivative(POINTS), slope, rtol=1e-13, atol=3e-15)
    # mp.diff itself is good to about half its digits.
    assert_allclose(f.curvature(POINTS), bend, rtol=1e-12, atol=3e-15)


@pytest.mark.parametrize("name", NAMED)
def test_beyond_its_reach_an_activation_is_straight(name):
    f = NAMED[name]
    low, high = f.reach
    outside = np.array([low - 1e-9, low - 5, high + 1e-9, high + 5])
    assert_allclose(f.curvature(outside), 0, atol=1e-16)


@pytest.mark.parametrize("name", NAMED)
def test_inflections_are_where_the_second_derivative_changes_sign(name):
    f, reference = NAMED[name], FUNCTIONS[name]
    with mp.workdps(DIGITS):
        grid = [mp.mpf(x) / 8 + mp.mpf("0.01") for x in range(-64, 65)]
        curvature = [mp.diff(reference, x, 2) for x in grid]
        # A straight line differentiates to rounding, not to zero.
        signs = [mp.sign(value) if abs(value) > 1e-20 else 0 for value in curvature]
        changes = [
            (float(low), float(high))
            for low, high, before, after in zip(
                grid, grid[1:], signs, signs[1:], strict=False
            )
            if before * after < 0
        ]
        assert len(changes) == len(f.inflections)
        for (low, high), point in zip(changes, f.inflections, strict=True):
            assert low <= point <= high
            assert abs(mp.diff(reference, mp.mpf(point), 2)) < 1e-14


@pytest.mark.parametrize("name", NAMED)
def test_slopes_are_the_limits_of_the_derivative(name):
    f = NAMED[name]
    assert_allclose(f.derivative(np.array([-800.0, 800.0])), f.slopes, atol=1e-15)

"""Total variations against quadrature, and the bound they give."""

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose
from scipy.stats import norm
from strategies import error_laws, ratios, slopes

from theory import (
    Activation,
    LeakyReLU,
    expected_mloss,
    mloss_bound,
    total_variation,
)
from theory.activations import NAMED


@pytest.mark.parametrize("name", NAMED)
def test_variation_is_the_length_that_the_slope_travels(name):
    f = NAMED[name]
    slopes = f.derivative(np.linspace(-60, 60, 1_200_001))
    travelled = np.abs(np.diff(slopes)).sum()
    # A grid of step h misses max|f'''| h^2 at each of two turning points, and
    # 2 h |f''| where f' turns back at a kink.
    kinks = 2e-4 * np.abs(f.curvature(np.array(f.kinks) * (1 - 1e-9))).sum()
    assert_allclose(total_variation(name), travelled, rtol=0, atol=2e-8 + kinks)


def test_gelu_variation_in_closed_form():
    r = np.sqrt(2)
    assert_allclose(
        total_variation("gelu"), 4 * (norm.cdf(r) + r * norm.pdf(r)) - 3, rtol=1e-15
    )


@given(slope=slopes)
def test_leaky_relu_variation(slope):
    assert total_variation(LeakyReLU(slope)) == abs(1 - slope)


def test_a_users_own_activation_with_kinks_and_turns():
    # |x| on the left of 1, then constant: slopes -1, 1, 0.
    hat = Activation(
        "hat",
        function=lambda x: np.where(x > 1, 1.0, np.abs(x)),
        derivative=lambda x: np.where(x > 1, 0.0, np.sign(x)),
        curvature=np.zeros_like,
        slopes=(-1.0, 0.0),
        reach=(0.0, 1.0),
        kinks=(0.0, 1.0),
    )
    assert total_variation(hat) == 3
    assert_allclose(total_variation(hat.function), 3, rtol=1e-9)


@given(law=error_laws(), ratio=ratios)
def test_relu_stays_below_its_bound_and_meets_it(law, ratio):
    weights, cov = law
    given = {"q": len(weights), "weights": weights, "cov": cov}
    found = expected_mloss("relu", ratio, 1.0, **given)
    bound = mloss_bound("relu", ratio, 1.0, **given)
    assert found <= bound * (1 + 1e-12)
    if ratio > 8 * np.sqrt(np.abs(cov).max()):
        # erfc(8 / sqrt 2) is 1e-15.
        assert_allclose(found, bound, rtol=1e-12)


def test_bound_for_equal_weights_and_independent_errors():
    found = mloss_bound("tanh", 10.0, 3.0, q=4)
    assert_allclose(found, 2 * 9 * (1 - 1 / 4) / 40, rtol=1e-15)

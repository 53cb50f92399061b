import numpy as np
import pytest
from measured_networks import WIDTHS
from numpy.testing import assert_allclose
from scipy.stats import kstest
from strategies import EPS

from simulate.activations import relu
from simulate.networks import draw_merge
from simulate.random_networks import combined, mean_square, network_family


def test_a_fine_tune_moves_every_parameter_by_sigma_of_its_deviation():
    sigma = 0.3
    family = network_family((40, 60, 50, 30), activation="gelu", bias_share=0.1)
    rng = np.random.default_rng(1)
    merge = draw_merge(family, sigma, weights=np.ones(1), rng=rng)
    steps = combined([merge.sources[0], merge.base], [1.0, -1.0])
    for step, layer, (weight, bias) in zip(
        steps, merge.base, family.deviations, strict=True
    ):
        # Nine tests at 1e-4: a wrong alarm in a thousand seeds.
        assert kstest(step.weight.ravel(), "norm", (0, sigma * weight)).pvalue > 1e-4
        assert kstest(layer.weight.ravel(), "norm", (0, weight)).pvalue > 1e-4
        assert kstest(step.bias, "norm", (0, sigma * bias)).pvalue > 1e-4


@pytest.mark.parametrize(
    ("f", "expected"), [(relu, 0.5), (np.copy, 1.0), (np.sign, 1.0)]
)
def test_he_has_half_the_variance_for_relu(f, expected):
    assert_allclose(mean_square(f), expected, rtol=1e-12)  # of adaptive quadrature


def test_inputs_have_mean_square_one():
    family = network_family(WIDTHS)
    x = family.draw_inputs(100, np.random.default_rng(0))
    assert_allclose(np.mean(x**2, axis=1), 1, rtol=8 * EPS)

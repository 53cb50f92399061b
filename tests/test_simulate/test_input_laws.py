from math import sqrt

import numpy as np
import pytest
from numpy.testing import assert_allclose

from simulate import Empirical, Gaussian, Laplace, Uniform
from simulate.backends import NUMPY
from simulate.inputs import input_law

EPS = np.finfo(np.float64).eps
SMOOTH = [Uniform(3.0), Gaussian(2.0), Laplace(0.5)]
SAMPLE = Empirical(np.array([3.0, -1.0, 0.5, 0.5]))
INNER = np.linspace(0.01, 0.99, 99)


@pytest.mark.parametrize("law", SMOOTH, ids=repr)
def test_the_cdf_undoes_the_quantile(law):
    found = law.cdf(law.quantile(INNER, NUMPY), NUMPY)
    # The slope of u(x(u)) is 1: a few roundings of numbers of size 1.
    assert_allclose(found, INNER, rtol=0, atol=16 * EPS)


@pytest.mark.parametrize("law", SMOOTH, ids=repr)
def test_the_density_is_the_slope_of_the_cdf(law):
    x, step = law.quantile(INNER[INNER != 0.5], NUMPY), 1e-5 * law.spread
    slope = (law.cdf(x + step, NUMPY) - law.cdf(x - step, NUMPY)) / (2 * step)
    # Central differences: step^2 / 6 times the third derivative, and rounding / step.
    assert_allclose(law.density(x, NUMPY), slope, rtol=0, atol=1e-9 / law.spread)


@pytest.mark.parametrize("law", [*SMOOTH, SAMPLE], ids=repr)
def test_the_spread_is_that_of_the_quantiles(law):
    u = (np.arange(100_000) + 0.5) / 100_000
    x = law.quantile(u, NUMPY)
    # The midpoint rule leaves out the outermost halves of 1e-5 of the mass, where
    # x^2 of the Laplace law is some 150 times its scale squared.
    assert_allclose(x.std(), law.spread, rtol=1e-3)


@pytest.mark.parametrize("law", [*SMOOTH, SAMPLE], ids=repr)
def test_the_ends_are_finite(law):
    ends = law.quantile(np.array([0.0, 1.0]), NUMPY)
    assert np.isfinite(ends).all()
    assert ends[0] < ends[1]


def test_a_sample_is_drawn_with_equal_chances():
    u = (np.arange(400) + 0.5) / 400
    values, counts = np.unique(SAMPLE.quantile(u, NUMPY), return_counts=True)
    assert values.tolist() == [-1.0, 0.5, 3.0]
    assert counts.tolist() == [100, 200, 100]


def test_the_tails_of_the_uniform_law_are_empty():
    outside = np.array([-3.0001, 3.0001])
    assert (Uniform(3.0).density(outside, NUMPY) == 0).all()
    assert Uniform(3.0).cdf(outside, NUMPY).tolist() == [0.0, 1.0]
    assert Uniform(3.0).spread == 3.0 / sqrt(3)


def test_a_number_is_a_half_width():
    assert input_law(2) == Uniform(2.0)
    assert input_law(SAMPLE) is SAMPLE


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(0.0), "half_width must be finite and above 0"),
        (lambda: Gaussian(-1.0), "scale must be finite and above 0"),
        (lambda: Laplace(np.inf), "scale must be finite and above 0"),
        (lambda: Empirical(np.array([])), "sample must hold one or more finite"),
        (lambda: Empirical(np.array([1.0, np.nan])), "sample must hold one or more"),
    ],
)
def test_bad_laws_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()

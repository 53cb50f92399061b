"""The law for any density of x, against definitions, closed forms and quadrature."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.stats import norm
from strategies import EPS, error_laws

from theory import mloss_bound, total_variation
from theory.activations import NAMED
from theory.density import (
    density_bound,
    density_law,
    gaussian_base_mloss,
    histogram_density,
    laplace_density,
    mixture_density,
    normal_density,
)
from theory.law import error_law

MIXTURE = mixture_density(
    [normal_density(-1.0, 0.5), laplace_density(0.5, 0.8)], [0.4, 0.6]
)
PAIR = {"weights": [0.3, 0.7], "cov": [[1.0, 0.4], [0.4, 2.0]]}


@pytest.mark.parametrize("name", NAMED)
def test_a_uniform_density_gives_the_total_variation_law(name):
    uniform = histogram_density([0.0], [-100.0, 100.0])
    found = density_law(name, uniform, jensen_variance=4.5)
    # The quadrature's 1e-12, and the tails of f' outside its reach.
    assert_allclose(found, mloss_bound(name, 100.0, 3.0), rtol=2e-12, atol=1e-17)
    bound = density_bound(name, uniform, jensen_variance=4.5)
    assert_allclose(bound, mloss_bound(name, 100.0, 3.0), rtol=4 * EPS)


@pytest.mark.parametrize(
    ("density", "value"),
    [
        (normal_density(1.0, 2.0), lambda x: norm.pdf(x, 1.0, 2.0)),
        (laplace_density(1.0, 2.0), lambda x: np.exp(-abs(x - 1) / 2) / 4),
    ],
)
def test_kinks_weigh_the_density_where_they_are(density, value):
    found = density_law("relu6", density, jensen_variance=[0.5, 3.0])
    # exp of a rounded argument of a few units.
    expected = np.array([0.25, 1.5]) * (value(0.0) + value(6.0))
    assert_allclose(found, expected, rtol=16 * EPS)


@pytest.mark.parametrize("density", [normal_density(0.7, 0.02), MIXTURE])
@pytest.mark.parametrize("name", ["gelu", "mish", "elu"])
def test_smooth_bends_weigh_the_density_throughout(name, density):
    f = NAMED[name]
    low, high = f.reach
    points = sorted({*density.breaks, *f.inflections, *f.kinks, low, high})
    points = [x for x in points if low <= x <= high]

    def integrand(x):
        return float(density(np.array(x)) * abs(f.curvature(np.array(x))))

    parts = [
        quad(integrand, a, b, epsabs=1e-14, epsrel=1e-12) for a, b in pairwise(points)
    ]
    value, error = np.sum(parts, axis=0)
    at_kinks = density(np.array(f.kinks)) @ np.abs(f.jumps)
    found = density_law(f, density, jensen_variance=2.0)
    assert error < 1e-9
    assert_allclose(found, value + at_kinks, rtol=1e-11, atol=max(error, 1e-14))


def test_a_histogram_weighs_how_far_the_slope_travels_in_each_bin():
    rng = np.random.default_rng(0)
    sample, edges = rng.normal(size=500), np.linspace(-4, 4, 17)
    histogram = histogram_density(sample, edges)
    assert_allclose(histogram((edges[1:] + edges[:-1]) / 2) * 0.5 @ np.ones(16), 1)
    # tanh' rises to 0 and falls after it, and 0 is an edge.
    travelled = np.abs(np.diff(NAMED["tanh"].derivative(edges)))
    shares = np.histogram(sample, edges)[0] / 500
    found = density_law("tanh", histogram, jensen_variance=1.0)
    assert_allclose(found, shares @ travelled, rtol=1e-12)


def test_a_mixture_is_the_mean_of_its_parts():
    parts = [normal_density(-1.0, 0.5), laplace_density(0.5, 0.8)]
    found = density_law("gelu", MIXTURE, jensen_variance=1.0)
    laws = [density_law("gelu", part, jensen_variance=1.0) for part in parts]
    assert_allclose(found, 0.4 * laws[0] + 0.6 * laws[1], rtol=1e-11)


@given(
    name=st.sampled_from(sorted(NAMED)),
    mean=st.floats(-5, 5),
    deviation=st.floats(1e-3, 1e3),
    scale=st.floats(1e-3, 1e3),
)
def test_the_law_stays_below_its_bound(name, mean, deviation, scale):
    density = mixture_density(
        [normal_density(mean, deviation), laplace_density(-mean, scale)], [0.5, 0.5]
    )
    law = density_law(name, density, jensen_variance=1.0)
    assert law <= density_bound(name, density, jensen_variance=1.0) * (1 + 1e-11)


@pytest.mark.parametrize("name", ["gelu", "relu", "tanh"])
@pytest.mark.parametrize("base", ["normal", "laplace", "mixture", "histogram"])
def test_the_definition_follows_the_law_and_the_bound(name, base):
    rng = np.random.default_rng(7)
    n, sigma = 1_000_000, 0.05
    edges = np.array([-3.0, -0.5, 0.5, 2.0, 3.0])
    draws = {
        "normal": rng.normal(0.3, 1.2, n),
        "laplace": rng.laplace(0.3, 1.2, n),
        "mixture": np.where(
            rng.random(n) < 0.4, rng.normal(-1, 0.5, n), rng.laplace(0.5, 0.8, n)
        ),
        "histogram": rng.uniform(edges[1], edges[2], n),
    }
    densities = {
        "normal": normal_density(0.3, 1.2),
        "laplace": laplace_density(0.3, 1.2),
        "mixture": MIXTURE,
        "histogram": histogram_density(draws["histogram"], edges),
    }
    weights, cov = np.array(PAIR["weights"]), np.array(PAIR["cov"])
    errors = rng.multivariate_normal(np.zeros(2), sigma**2 * cov, size=n)
    h = draws[base][:, None] + errors
    f = NAMED[name]
    loss = np.abs(f(h @ weights) - f(h) @ weights)
    mean, stderr = loss.mean(), loss.std() / np.sqrt(n)
    variance = sigma**2 * error_law(2, weights, cov).jensen_variance
    law = density_law(name, densities[base], jensen_variance=variance)
    assert stderr <= 0.012 * law
    # The next order in sigma is below a thousandth (docs/law.md, section 2).
    assert abs(mean - law) <= 5 * stderr + 1e-3 * law
    bound = density_bound(name, densities[base], jensen_variance=variance)
    assert mean - 5 * stderr <= bound


@given(
    law=error_laws(),
    mean=st.floats(-3, 3),
    deviation=st.floats(0.05, 20),
    sigma=st.floats(0.05, 20),
)
def test_gaussian_base_of_relu_in_closed_form(law, mean, deviation, sigma):
    weights, cov = law
    found = gaussian_base_mloss(
        "relu",
        mean=mean,
        deviation=deviation,
        sigma=sigma,
        q=len(weights),
        weights=weights,
        cov=cov,
    )

    def relu_mean(variance):
        s = np.sqrt(deviation**2 + sigma**2 * variance)
        return mean * norm.cdf(mean / s) + s * norm.pdf(mean / s)

    merged = relu_mean(weights @ cov @ weights)
    sources = relu_mean(np.diagonal(cov))
    # The difference cancels: a few roundings of its terms a source. The variance of
    # the merge cancels too, to eps of the greatest.
    rounding = 64 * EPS * (sources.max() + abs(mean))
    rounding += 16 * EPS * sigma**2 * np.abs(cov).max() / deviation
    assert_allclose(found, weights @ sources - merged, rtol=1e-11, atol=rounding)


@pytest.mark.parametrize("name", ["softplus", "elu"])
@pytest.mark.parametrize(("deviation", "sigma"), [(1.0, 0.5), (0.2, 3.0)])
def test_gaussian_base_of_other_convex_functions(name, deviation, sigma):
    f = NAMED[name]
    mean = 0.4

    def f_mean(variance):
        s = np.sqrt(deviation**2 + sigma**2 * variance)
        ends = [-12.0, -mean / s, 12.0]  # split at the kink of ELU

        def integrand(z):
            return float(f(np.array(mean + s * z))) * norm.pdf(z)

        parts = [
            quad(integrand, a, b, epsabs=1e-13, epsrel=1e-12) for a, b in pairwise(ends)
        ]
        return np.sum(parts, axis=0)

    law = error_law(2, PAIR["weights"], PAIR["cov"])
    terms = [f_mean(v) for v in (*law.source_variances, law.merged_variance)]
    values, errors = np.array(terms).T
    found = gaussian_base_mloss(
        name, mean=mean, deviation=deviation, sigma=sigma, **PAIR
    )
    assert errors.sum() < 1e-9
    expected = 0.3 * values[0] + 0.7 * values[1] - values[2]
    assert_allclose(found, expected, rtol=1e-11, atol=errors.sum())


@pytest.mark.parametrize("name", ["relu", "softplus", "elu"])
def test_the_law_misses_by_the_fourth_power_of_sigma(name):
    base = {"mean": 0.4, "deviation": 1.0}
    sigma = 0.02 * 2.0 ** np.arange(3)
    exact = [gaussian_base_mloss(name, sigma=s, **base, **PAIR) for s in sigma]
    variance = sigma**2 * error_law(2, **PAIR).jensen_variance
    law = density_law(name, normal_density(0.4, 1.0), jensen_variance=variance)
    powers = np.diff(np.log2(np.abs(exact - law)))
    # Its distance from 4 falls by 4 with each halving: the last change bounds it.
    change = abs(powers[1] - powers[0])
    assert change < 0.1
    assert abs(powers[0] - 4) <= change


def test_variation_and_peak_are_all_the_bound_knows():
    found = density_bound("tanh", normal_density(3.0, 2.0), jensen_variance=0.6)
    peak = 1 / np.sqrt(8 * np.pi)
    assert_allclose(found, 0.3 * total_variation("tanh") * peak, rtol=4 * EPS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: normal_density(0.0, 0.0), "deviation must be finite and > 0"),
        (lambda: laplace_density(0.0, -1.0), "scale must be finite and > 0"),
        (lambda: histogram_density([], [0, 1]), "sample must be finite"),
        (lambda: histogram_density([np.nan], [0, 1]), "sample must be finite"),
        (lambda: histogram_density([0.5], [1, 0]), "edges must be one increasing"),
        (lambda: mixture_density([MIXTURE], [0.5]), "weights must sum to 1"),
        (lambda: mixture_density([MIXTURE], [0.5, 0.5]), "each of 1 parts"),
        (
            lambda: density_law("relu", MIXTURE, jensen_variance=-1.0),
            "jensen_variance must be finite and >= 0, got -1",
        ),
        (
            lambda: density_law("relu", NEGATIVE, jensen_variance=1.0),
            "density must be finite and >= 0, got -1.0 at 0.0",
        ),
        (
            lambda: gaussian_base_mloss("gelu", mean=0, deviation=1, sigma=1),
            "'gelu' bends both ways",
        ),
    ],
)
def test_bad_densities_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


NEGATIVE = type(MIXTURE)(lambda x: x - 1, peak=1.0, breaks=())

"""The pieces under the enclosures: rounding, the Gaussian, activations, boxes."""

from itertools import pairwise
from math import nextafter

import mpmath as mp
import numpy as np
import pytest
from flint import acb, arb, ctx
from numpy.polynomial.legendre import leggauss
from scipy.special import ndtr

from theory.certified.difference import difference, scaled_difference_over
from theory.certified.enclosure import Enclosure, outward
from theory.certified.gaussian import (
    chance_over,
    inside,
    missing_gap,
    shifted_relu_gap,
)
from theory.certified.signed import signed_gap
from theory.certified.smooth import GELU, QUICK_GELU, SILU

SMOOTH = {"gelu": GELU, "quick_gelu": QUICK_GELU, "silu": SILU}
DEFINITIONS = {
    "gelu": lambda x: x * mp.ncdf(x),
    "quick_gelu": lambda x: x / (1 + mp.exp(-mp.mpf("1.702") * x)),
    "silu": lambda x: x / (1 + mp.exp(-x)),
}
every_smooth = pytest.mark.parametrize("name", SMOOTH)


@pytest.fixture(autouse=True)
def _precision():
    with ctx.workprec(128):
        yield


@pytest.mark.parametrize("divisor", [3, 10])
def test_ends_are_rounded_outward_and_no_further(divisor):
    # 1/3 rounds down to a float and 1/10 up; neither is a float.
    part = outward(arb(1) / divisor)
    assert nextafter(part.lower, 1.0) == part.upper
    assert divisor * arb(part.lower) < 1 < divisor * arb(part.upper)


def test_a_float_encloses_itself():
    assert outward(arb(0.5)) == Enclosure(0.5, 0.5)


def test_an_enclosure_is_a_finite_interval():
    enclosure = Enclosure(1.0, 1.5)
    assert (enclosure.width, enclosure.midpoint) == (0.5, 1.25)
    assert enclosure.contains(1.5)
    assert not enclosure.contains(1.6)
    for lower, upper in [(2.0, 1.0), (float("nan"), 1.0), (0.0, float("inf"))]:
        with pytest.raises(ValueError, match="no finite interval"):
            Enclosure(lower, upper)


@every_smooth
@pytest.mark.parametrize("x", [-3.0, -0.4, 0.0, 1.0, 2.5, 9.0])
def test_derivatives_are_those_of_the_definition(name, x):
    f, define = SMOOTH[name], DEFINITIONS[name]
    known = [f.excess, f.slope_excess, f.curvature, f.curvature_slope]
    with mp.workdps(60):
        series = mp.taylor(lambda t: define(t) - t, x, 3)
        expected = [mp.nstr(c * mp.factorial(n), 40) for n, c in enumerate(series)]
    for value, truth in zip(known, expected, strict=True):
        # mpmath differences 60 digits; three orders leave more than 30.
        assert abs(value(arb(x)) - arb(truth)) < 1e-28


@every_smooth
def test_curvature_changes_sign_at_the_inflection(name):
    f = SMOOTH[name]
    r = f.inflection()
    assert r.rad() < 1e-30
    assert f.curvature(r - arb(1e-20)) > 0 > f.curvature(r + arb(1e-20))


@every_smooth
def test_curvature_ratio_falls(name):
    # The premise of the single root, f''(w) / |f''(2m - w)| falling in w for m >= r.
    f = SMOOTH[name]
    r = f.inflection()
    for m in [r, r * 1.01, r * 1.5, r * 4]:
        points = [r * i / 200 for i in range(1, 200)]
        ratios = [f.curvature(w) / -f.curvature(2 * m - w) for w in points]
        assert all(a > b for a, b in pairwise(ratios))


def test_no_disc_around_a_pole_counts_as_analytic():
    pole = acb(0, arb.pi())
    assert not SILU.analytic_inside([pole + acb(arb(0, 1), arb(0, 1))])
    assert not SILU.analytic_inside([acb(-1, 4), acb(1, 4)])
    assert SILU.analytic_inside([acb(1, 4), acb(2, 9)])
    assert SILU.analytic_inside([acb(-5, 3), acb(5, 3)])


def test_missing_gap_is_a_twice_integrated_gaussian():
    # 2 int_x^inf (t - x) Phi(-t/s) dt at both scales.
    x, sigma = 0.7, 1.3

    def tail(s):
        return 2 * mp.quad(lambda t: (t - x) * mp.ncdf(-t / s), [x, x + 3, x + 30])

    expected = tail(sigma) - tail(sigma / mp.sqrt(2))
    assert abs(float(missing_gap(arb(x), arb(sigma))) - float(expected)) < 1e-13


@pytest.mark.parametrize("t", [0.0, 1.0, 4.0])
def test_the_two_forms_of_the_shifted_gap_are_one_function(t):
    forms = [
        shifted_relu_gap(arb(t), arb(2), arb(1.5), within=within)
        for within in (True, False)
    ]
    assert forms[0].overlaps(forms[1])
    assert max(form.rad() for form in forms) < 1e-30


@pytest.mark.parametrize(("k", "sigma"), [(2.0, 1.0), (0.3, 5.0), (40.0, 0.01)])
def test_signed_gap_of_gelu_is_its_closed_form(k, sigma):
    # docs/theory.md section 2: the integral of K_relu(1 + v) - 2 K_relu'(1 + v).
    def primitive(t):
        z = k / arb(t).sqrt()
        density = (-z * z / 2).exp() / (2 * arb.pi()).sqrt()
        chance = (z / arb(2).sqrt()).erf()
        return (t + k * k) * chance + 2 * k * arb(t).sqrt() * density - 2 * chance

    k, sigma = arb(k), arb(sigma)
    expected = primitive(1 + sigma**2) - primitive(1 + sigma**2 / 2)
    found = signed_gap(GELU, k, sigma, end=arb(12), tolerance=sigma**2 * arb(1e-25))
    assert found.overlaps(expected)
    assert found.rad() < 1e-20 * found.mid()


@every_smooth
def test_what_lies_beyond_the_end_is_in_the_signed_gap(name):
    f, k, sigma = SMOOTH[name], arb(3), arb(1)
    far, near = (
        signed_gap(f, k, sigma, end=arb(end), tolerance=arb(1e-20)) for end in (60, 3)
    )
    assert near.contains(far)
    assert not near.lower().overlaps(near.upper())


@pytest.mark.parametrize("k", [2.0, 0.05])
def test_chance_over_a_box_bounds_every_point(k):
    # Nearly attained for a small k, where P is a Gaussian.
    k, s = arb(k), arb(0.5)
    rng = np.random.default_rng(0)
    for centre in rng.uniform(-4, 4, 20):
        box = acb(arb(centre, 0.05), arb(0.6, 0.05))
        bound = chance_over(box, k, s)
        for a, b in rng.uniform(-0.05, 0.05, (20, 2)):
            assert abs(inside(acb(centre + a, 0.6 + b), k, s)) <= bound


@every_smooth
@pytest.mark.parametrize("derivative", [False, True])
@pytest.mark.parametrize("size", [0.3, 4.0])
def test_difference_over_a_box_holds_every_point(name, derivative, size):
    f = SMOOTH[name]
    value = f.slope_excess if derivative else f.excess
    rng = np.random.default_rng(1)
    offset = acb(arb(1.0, 1e-3), arb(0.1, 1e-3))
    u = acb(arb(size, 1e-3), arb(0.1, 1e-3))
    whole = scaled_difference_over(f, offset, u, derivative=derivative)
    assert abs(whole).rad() < 0.1
    for a, b, c, d in rng.uniform(-1e-3, 1e-3, (50, 4)):
        x, at = acb(1.0 + a, 0.1 + b), acb(size + c, 0.1 + d)
        assert whole.contains(difference(value, x, at) / (at * at))


def test_difference_is_the_mean_of_the_curvature_under_a_hat():
    points, weights = leggauss(60)
    t = (points + 1) / 2
    m, u = 0.9, 0.7

    def curvature(x):
        return np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi) * (2 - x**2)

    hat = (1 - t) * (curvature(m + t * u) + curvature(m - t * u))
    expected = u**2 / 2 * (hat @ weights / 2)
    f = [x * ndtr(x) for x in (m + u, m - u, m)]
    found = float(difference(GELU.excess, arb(m - u), arb(u)))
    # Sixty nodes are exact to rounding; f is of the order of one.
    assert abs(found - expected) < 1e-15
    assert abs(found - ((f[0] + f[1]) / 2 - f[2])) < 1e-15

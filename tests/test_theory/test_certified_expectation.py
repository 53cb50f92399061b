"""Enclosures of E[D]: narrow, true to independent routes, and closed to bad input."""

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose
from strategies import ratios, scales, slopes

from benchmarks.definition import from_definition
from theory import (
    Enclosure,
    LeakyReLU,
    certified_mloss,
    expected_mloss,
    mloss_bound,
)

SMOOTH = ("gelu", "quick_gelu", "silu")
POINTS = {
    "paper": (5.0, 1.0),
    "errors wider than the range": (0.5, 1.0),
    "edge in the tail of f": (3.0, 1e-3),
    "edge before the inflection": (1.0, 1e-3),
    "huge": (50.0, 30.0),
    "far": (1e4, 0.1),
    "k / sigma = 1e-6": (1e-6, 1.0),
    "k / sigma = 1e8": (1e8, 1.0),
}


def off(enclosure, value):
    """How far outside the enclosure a value lies, relative to it."""
    outside = max(enclosure.lower - value, value - enclosure.upper, 0.0)
    return outside / enclosure.lower


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("activation", SMOOTH)
def test_smooth_enclosure_is_narrow_and_holds_the_expectation(activation, point):
    k, sigma = POINTS[point]
    found = certified_mloss(activation, k, sigma)
    assert found.width <= 1e-8 * found.lower
    # The stated error of the quadrature in float64.
    assert off(found, float(expected_mloss(activation, k, sigma))) <= 1e-10
    assert found.lower <= mloss_bound(activation, k, sigma)


@given(ratio=ratios, sigma=scales, slope=slopes)
def test_leaky_relu_enclosure_holds_the_closed_form(ratio, sigma, slope):
    k = ratio * sigma
    f = LeakyReLU(slope)
    found = certified_mloss(f, k, sigma, rtol=1e-14)
    if slope == 1:
        assert found == Enclosure(0.0, 0.0)
        return
    assert found.width <= 1e-14 * found.lower
    # The stated error of the closed form in float64.
    assert off(found, float(expected_mloss(f, k, sigma))) <= 1e-12


@pytest.mark.parametrize(
    ("activation", "k", "sigma"),
    [("gelu", 2.0, 0.5), ("silu", 1.0, 2.0), ("quick_gelu", 2.0, 1.0)],
)
def test_enclosure_holds_the_definition_in_high_precision(activation, k, sigma):
    value, error = from_definition(activation, k, sigma, digits=20, order=12)
    assert error <= 1e-11 * value
    found = certified_mloss(activation, k, sigma, rtol=1e-11)
    assert found.width <= 1e-11 * found.lower
    assert found.lower - error <= value <= found.upper + error


@pytest.mark.parametrize("activation", SMOOTH)
def test_every_refinement_meets_the_others(activation):
    found = [certified_mloss(activation, 2.0, 0.5, rtol=10.0**-n) for n in (2, 6, 13)]
    widths = [enclosure.width for enclosure in found]
    assert widths == sorted(widths, reverse=True)
    # All hold one number, so the lowest upper end is above the highest lower end.
    assert max(e.lower for e in found) <= min(e.upper for e in found)


@pytest.mark.parametrize("activation", ["relu", *SMOOTH])
def test_a_value_off_by_a_millionth_is_excluded(activation):
    found = certified_mloss(activation, 5.0, 0.5)
    assert found.contains(found.midpoint)
    assert not found.contains(found.midpoint * (1 + 1e-6))
    assert not found.contains(found.midpoint * (1 - 1e-6))


def test_leaky_relu_scales_relu():
    relu = certified_mloss("relu", 3.0, 1.0)
    leaky = certified_mloss(LeakyReLU(-1.0), 3.0, 1.0)
    # 1 - (-1) = 2 exactly, and doubling is exact.
    assert (leaky.lower, leaky.upper) == (2 * relu.lower, 2 * relu.upper)


@pytest.mark.parametrize("ratio", [0.5, 20.0])
@pytest.mark.parametrize("activation", SMOOTH)
def test_smooth_activations_become_relu_seen_from_afar(activation, ratio):
    relu = certified_mloss("relu", ratio * 1e6, 1e6)
    smooth = certified_mloss(activation, ratio * 1e6, 1e6)
    # The excess falls with 1/sigma^2, 1e-12 here; the widths are 1e-8.
    assert_allclose(smooth.midpoint, relu.midpoint, rtol=3e-8)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf, [1.0, 2.0], "wide"])
@pytest.mark.parametrize("name", ["k", "sigma"])
def test_bad_k_or_sigma_is_refused(name, value):
    given = {"k": 1.0, "sigma": 1.0, name: value}
    with pytest.raises(ValueError, match=rf"^{name} must be"):
        certified_mloss("gelu", **given)


@pytest.mark.parametrize("rtol", [0.0, -1e-8, 1e-15, 1.0, np.nan])
def test_bad_rtol_is_refused(rtol):
    with pytest.raises(ValueError, match="rtol must be in"):
        certified_mloss("gelu", 1.0, 1.0, rtol=rtol)


def test_unknown_activations_are_refused():
    with pytest.raises(ValueError, match="unknown activation 'gellu'"):
        certified_mloss("gellu", 1.0, 1.0)
    with pytest.raises(ValueError, match=r"no certified expectation.*'mish'"):
        certified_mloss("mish", 1.0, 1.0)


def test_what_no_float_can_hold_is_an_error():
    # E[D] is about 1e-340, below the smallest float64.
    with pytest.raises(ArithmeticError, match="no enclosure of relative width"):
        certified_mloss("relu", 1.0, 1e-170)

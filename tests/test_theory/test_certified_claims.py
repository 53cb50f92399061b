"""Proved statements hold where they can be sampled, and false ones are not proved."""

import numpy as np
import pytest
from flint import fmpq
from scipy.special import erf

from theory import certified_mloss, expected_mloss, total_variation
from theory.certified import (
    certificates,
    certified_total_variation,
    gelu_can_fall_below_relu,
    gelu_exceeds_relu,
    relu_constant_is_an_eighth,
    smooth_constant,
)
from theory.certified.claims import _require
from theory.certified.ranking import boxes_with_positive_excess


def excess(k, v):
    """K_gelu(v) - K_relu(v) in float64."""
    t = 1 + v
    density = np.exp(-(k**2) / (2 * t)) / np.sqrt(2 * np.pi)
    gelu = erf(k / np.sqrt(2 * t)) + 2 * k * density / t**1.5
    return gelu - erf(k / np.sqrt(2 * v))


@pytest.mark.parametrize("name", ["gelu", "quick_gelu", "silu"])
def test_total_variation_to_the_last_digits(name):
    found = certified_total_variation(name)
    assert found.width <= 1e-15
    # Three slopes, each rounded to half an ulp of 1, make the float's sum.
    assert found.lower - 4e-15 <= total_variation(name) <= found.upper + 4e-15


def test_total_variation_does_not_see_the_scale():
    assert certified_total_variation("silu") == certified_total_variation("quick_gelu")


def test_total_variation_of_another_activation_is_refused():
    with pytest.raises(ValueError, match="name must be one of gelu, quick_gelu, silu"):
        certified_total_variation("mish")


@pytest.mark.parametrize("name", ["gelu", "quick_gelu", "silu"])
def test_constant_stays_under_its_bound(name):
    bound = smooth_constant(name).values["TV(f')/8"]
    assert bound.upper < 0.19
    for k, sigma in [(1e4, 1e-2), (1.0, 0.3)]:
        found = certified_mloss(name, k, sigma)
        assert k * found.upper / sigma**2 < bound.lower
    # The bound is the limit: k = 1e4 and sigma = 0.01 come within a thousandth.
    near = certified_mloss(name, 1e4, 1e-2).lower * 1e4 / 1e-4
    assert near > 0.999 * bound.lower


def test_printed_relu_constant_is_more_than_three_times_the_true_one():
    ratio = relu_constant_is_an_eighth().values["printed over limit"]
    assert ratio.contains(8 / np.sqrt(2 * np.pi))
    found = certified_mloss("relu", 50.0, 1.0)
    # At k = 50 sigma the edges are far below the last bit.
    assert 50 * found.midpoint == pytest.approx(0.125, rel=1e-15)


def test_gelu_exceeds_relu_wherever_it_is_sampled():
    certificate = gelu_exceeds_relu()
    assert certificate.boxes > 100
    k = np.geomspace(0.851, 1e3, 60)[:, None]
    sigma = np.geomspace(1e-3, 1e2, 60)
    ratio = expected_mloss("gelu", k, sigma) / expected_mloss("relu", k, sigma)
    # Above 1 but for the 1e-10 of the quadrature, where GELU is ReLU seen from afar.
    assert ratio.min() > 1 - 1e-9


def test_excess_is_positive_in_each_case_of_the_proof():
    rng = np.random.default_rng(2)
    k = rng.uniform(0.851, 3, 20_000)
    v = rng.uniform(0.01, 4, 20_000)
    analytic = (1 + v <= k**2 / 3) | (v**2 + v >= 1)
    boxed = ~analytic
    assert boxed.sum() > 1_000
    assert excess(k, v).min() > 0
    # What the boxes do not cover is left to the two cases by hand, at any k there.
    assert k[boxed].max() < 2.204
    assert v[boxed].max() < 0.6181
    assert excess(rng.uniform(0.01, 3, 5_000), rng.uniform(0.6181, 4, 5_000)).min() > 0


def test_a_false_bound_on_k_is_not_proved():
    # Below about 0.849 the excess is negative near v = 0.17.
    assert excess(0.84, 0.17) < 0
    with pytest.raises(ArithmeticError, match="not proved in 2000 boxes"):
        boxes_with_positive_excess(fmpq(84, 100), limit=2_000)


def test_the_ranking_is_reversed_at_a_small_k():
    values = gelu_can_fall_below_relu().values
    assert values["E[D_GELU]"].upper < values["E[D_ReLU]"].lower


def test_every_certificate_is_given_with_its_method():
    proved = certificates()
    assert len({certificate.statement for certificate in proved}) == len(proved)
    assert all(certificate.method for certificate in proved)


def test_what_is_not_proved_is_an_error():
    with pytest.raises(ArithmeticError, match="could not prove that 2 < 1"):
        _require(2 < 1, "2 < 1")

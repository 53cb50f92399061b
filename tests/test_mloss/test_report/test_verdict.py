import math

import pytest
from report_scores import four_layers, score, site

from mloss import Gap
from mloss.report import verdict
from mloss.report.scale import GAP_SCALE, MLOSS_SCALE


def gap(relative, *, error=0.01, samples=128):
    """A gap with that relative standard error."""
    return Gap(
        mean=4 * relative,
        stderr=4 * relative * error,
        relative=relative,
        samples=samples,
    )


@pytest.mark.parametrize(
    ("relative", "level"),
    [(0.04, "close"), (0.06, "apart"), (0.19, "apart"), (0.21, "far"), (0.0, "close")],
)
def test_a_measured_gap_decides(relative, level):
    assert verdict(four_layers(), gap=gap(relative)).level == level


@pytest.mark.parametrize("limit", GAP_SCALE.limits)
def test_a_limit_within_two_standard_errors_leaves_it_open(limit):
    near = verdict(four_layers(), gap=gap(0.99 * limit, error=0.01))
    assert near.level == "unclear"
    assert "leave open" in near.sentence
    assert "Add samples" in near.sentence
    assert verdict(four_layers(), gap=gap(0.97 * limit, error=0.01)).level != "unclear"


def test_the_sentence_gives_the_gap_and_where_the_loss_is():
    found = verdict(four_layers(), gap=gap(0.123, error=0.05))
    assert "differ by 12 % +- 0.6 % of the ensemble's size" in found.sentence
    assert "73 % of the M-Loss is in blocks.2.fc1." in found.sentence


def test_one_sample_leaves_everything_open():
    found = verdict(four_layers(error=math.inf), gap=gap(0.01, error=math.inf))
    assert found.level == "unclear"
    assert "1.0 % +- ? %" in found.sentence
    assert "One sample has no standard error: add samples." in found.basis


def test_an_ensemble_of_zeros_is_far_and_said_so():
    zeros = Gap(mean=1.0, stderr=0.1, relative=math.inf, samples=8)
    found = verdict(four_layers(), gap=zeros)
    assert found.level == "far"
    assert "inf" not in found.sentence
    assert "its output is zero" in found.sentence


def test_no_gap_at_all_is_close():
    nothing = Gap(mean=0.0, stderr=0.0, relative=0.0, samples=8)
    assert verdict(four_layers(), gap=nothing).level == "close"


@pytest.mark.parametrize(
    ("times", "level"), [(0.5, "small"), (2.0, "moderate"), (1000.0, "large")]
)
def test_mloss_alone_has_a_scale_of_its_own(times, level):
    relative = times * MLOSS_SCALE.limits[0]
    found = verdict(four_layers(relative=relative))
    assert found.level == level
    assert "measure" in found.sentence
    assert "ensemble" in found.sentence


def test_mloss_alone_is_judged_by_the_median_layer():
    layers = [site(n, relative=r) for n, r in (("a", 2e-4), ("b", 3e-3), ("c", 0.9))]
    found = verdict(score(*layers, samples=64))
    assert found.level == "moderate"
    assert "0.30 % +- 0.006 % of a layer's output" in found.sentence
    assert "median of 3 layers, 64 samples; at most 90 %, in c" in found.sentence


def test_every_verdict_says_that_mloss_is_not_the_gap():
    for found in (verdict(four_layers()), verdict(four_layers(), gap=gap(0.1))):
        assert any("M-Loss is not the gap" in line for line in found.basis)
        assert any(
            "by convention" in line or "comes from" in line for line in found.basis
        )


def test_too_few_samples_are_said_so():
    few = verdict(four_layers(error=0.2), gap=gap(0.01)).basis
    assert any("too few. About 2048 would give 5 %" in line for line in few)
    enough = verdict(four_layers(error=0.02), gap=gap(0.01)).basis
    assert any(
        "to 2.0 % or better (standard error): enough." in line for line in enough
    )


def test_one_site_without_loss():
    nothing = site("only", node=(0.0, 0.0), relative=0.0)
    found = verdict(score(nothing))
    assert found.level == "small"
    assert "0 % +- 0 % of a layer's output (only, 128 samples)" in found.sentence
    assert "M-Loss is zero in every layer." in found.sentence

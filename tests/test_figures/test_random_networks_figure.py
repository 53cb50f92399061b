from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import same_color
from numpy.testing import assert_allclose, assert_array_equal

from figures.random_networks import GapSeries, LayerLosses, random_networks
from figures.style import BLUE, ORANGE

LOSSES = LayerLosses(
    title="ReLU",
    measured=np.array([0.1, 0.2]),
    stderr=np.array([0.01, 0.02]),
    predicted={name: np.array([0.1, 0.3]) for name in ("Gaussian", "k", "largest")},
)
BENT = GapSeries(
    label="ReLU",
    x=np.array([1.0, 4.0]),
    gap=np.array([2.0, 8.0]),
    stderr=np.array([0.1, 0.3]),
    predicted_x=np.array([1.0, 2.0, 4.0]),
    predicted=np.array([2.0, 4.0, 8.0]),
    shares={"own": np.array([0.9, 0.8]), "merge": np.array([0.3, 0.2])},
)
LINE = replace(BENT, label="linear", shares={})


@pytest.fixture
def axes():
    figure = random_networks(
        [LOSSES, replace(LOSSES, title="GELU")],
        over_sigma=[BENT, LINE],
        over_depth=[BENT, LINE],
    )
    return np.reshape(figure.axes, (2, 3))


def half_lengths(bars):
    (segments,) = bars[2]
    ends = np.array([segment[:, 1] for segment in segments.get_segments()])
    return (ends[:, 1] - ends[:, 0]) / 2


def test_mloss_is_drawn_by_layer_with_bars_of_two_standard_errors(axes):
    assert [ax.get_title() for ax in axes[:, 0]] == ["ReLU", "GELU"]
    for ax in axes[:, 0]:
        (bars,) = ax.containers
        assert_array_equal(bars[0].get_xdata(), [1, 2])
        assert_array_equal(bars[0].get_ydata(), [0.1, 0.2])
        # Differences of numbers below 1: a few of their ulps.
        assert_allclose(half_lengths(bars), [0.02, 0.04], rtol=0, atol=1e-15)


def test_every_prediction_is_named(axes):
    legend = axes[0, 0].get_legend()
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["Gaussian", "k", "largest", "measured"]


def test_gaps_lie_beside_their_prediction(axes):
    for ax in axes[0, 1:]:
        bars, other = ax.containers
        assert_array_equal(bars[0].get_ydata(), [2.0, 8.0])
        assert_allclose(half_lengths(bars), [0.2, 0.6], rtol=1e-14)
        predicted = [line for line in ax.lines if len(line.get_xdata()) == 3]
        assert_array_equal(predicted[0].get_ydata(), [2.0, 4.0, 8.0])
        assert same_color(predicted[0].get_color(), bars[0].get_color())
        assert not same_color(other[0].get_color(), bars[0].get_color())


def test_shares_have_the_colour_of_their_activation_and_the_style_of_the_feed(axes):
    for ax in axes[1, 1:]:
        own, merge = ax.lines
        assert (own.get_linestyle(), merge.get_linestyle()) == ("-", "--")
        assert_array_equal(own.get_ydata(), [0.9, 0.8])
        assert_array_equal(merge.get_ydata(), [0.3, 0.2])
        assert same_color(own.get_color(), BLUE)
        assert same_color(merge.get_color(), BLUE)
        assert not same_color(own.get_color(), ORANGE)
    texts = axes[1, 2].get_legend().get_texts()
    assert [text.get_text() for text in texts] == ["own", "merge"]


def test_depths_are_whole_numbers(axes):
    labels = [label.get_text() for label in axes[1, 2].get_xticklabels()]
    assert labels == ["1", "4"]

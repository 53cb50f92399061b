from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from figures import Dots, Prediction, merging_methods, node_map, predicted_gap

MEASURED = np.array([0.1, 1.0, 10.0])
KINDS = ("two tasks", "one task", "two tasks")


def prediction(title, *, in_gap_units):
    return Prediction(
        title=title,
        predicted=np.array([0.3, 2.0, 30.0]),
        correlation=(0.95, 0.8, 0.99),
        in_gap_units=in_gap_units,
    )


def test_nodes_are_mapped_by_layer_and_group():
    values = np.arange(6.0).reshape(2, 3)
    ax, bar = node_map(values, layers=["fc1", "fc2"], group_size=50).axes
    assert_array_equal(ax.collections[0].get_array(), values)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["fc1", "fc2"]
    assert_array_equal(ax.get_yticks(), [1, 2])
    assert ax.get_xlabel() == "node group (50 nodes each)"
    assert bar.get_ylabel() == "mean node M-Loss"


def test_layers_run_upwards():
    ax, _ = node_map(np.ones((2, 2)), layers=["first", "last"], group_size=1).axes
    low, high = ax.get_ylim()
    assert low < high


def test_merges_are_scattered_by_kind():
    figure = predicted_gap(
        MEASURED, [prediction("functional", in_gap_units=True)], kinds=KINDS
    )
    (ax,) = figure.axes
    points = {c.get_label(): c.get_offsets() for c in ax.collections}
    assert_array_equal(points["one task"], [[2.0, 1.0]])
    assert_array_equal(points["two tasks"], [[0.3, 0.1], [30.0, 10.0]])
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert ax.get_title() == "functional\nrank corr. 0.95 [0.80, 0.99]"


@pytest.mark.parametrize("in_gap_units", [True, False])
def test_the_identity_is_drawn_where_sizes_compare(in_gap_units):
    figure = predicted_gap(
        MEASURED, [prediction("any", in_gap_units=in_gap_units)], kinds=KINDS
    )
    drawn = [line.get_xydata().tolist() for line in figure.axes[0].lines]
    assert drawn == ([[[0.1, 0.1], [10.0, 10.0]]] if in_gap_units else [])


@pytest.mark.parametrize("count", [1, 3, 4, 6])
def test_every_prediction_has_one_panel(count):
    predictions = [prediction(f"p{i}", in_gap_units=True) for i in range(count)]
    axes = predicted_gap(MEASURED, predictions, kinds=KINDS).axes
    titles = [ax.get_title().split("\n")[0] for ax in axes]
    assert titles == [f"p{i}" for i in range(count)]


AVERAGE, DRAWS = "average", "random ranks"
ACCURACY = Dots(
    label="as merged",
    rows=[AVERAGE, DRAWS, DRAWS],
    values=np.array([0.7, 0.8, 0.9]),
    stderr=np.array([0.01, 0.02, 0.03]),
)
GAP = Dots("as merged", [DRAWS], np.array([2.0]), np.array([0.25]))


def test_methods_are_listed_from_the_top():
    left, _ = merging_methods([AVERAGE, DRAWS], accuracy=[ACCURACY], gap=[GAP]).axes
    assert [label.get_text() for label in left.get_yticklabels()] == [AVERAGE, DRAWS]
    assert left.yaxis_inverted()


def test_dots_lie_in_their_rows_with_bars_of_two_standard_errors():
    panels = merging_methods([AVERAGE, DRAWS], accuracy=[ACCURACY], gap=[GAP]).axes
    expected = (([70, 80, 90], [0, 1, 1], [2, 4, 6]), ([2.0], [1], [0.5]))
    for ax, (middle, row, half) in zip(panels, expected, strict=True):
        (bars,) = ax.containers
        markers, _, (segments,) = bars
        assert_allclose(markers.get_xdata(), middle, rtol=1e-15)
        assert_array_equal(markers.get_ydata(), row)
        ends = np.array([segment[:, 0] for segment in segments.get_segments()])
        # Differences of numbers below 100: a few of their ulps.
        assert_allclose((ends[:, 1] - ends[:, 0]) / 2, half, rtol=0, atol=1e-13)


def test_a_series_looks_the_same_in_both_panels():
    other = replace(ACCURACY, label="rescaled")
    left, right = merging_methods(
        [AVERAGE, DRAWS],
        accuracy=[ACCURACY, other],
        gap=[replace(GAP, label="rescaled")],
    ).axes
    colors = [bars.lines[0].get_color() for bars in left.containers]
    assert colors[0] != colors[1]
    assert right.containers[0].lines[0].get_color() == colors[1]


def test_a_series_steps_aside_only_where_another_has_its_row():
    other = Dots("reference", [AVERAGE, "base"], np.ones(2), np.zeros(2))
    left, _ = merging_methods(
        [AVERAGE, DRAWS, "base"], accuracy=[ACCURACY, other], gap=[]
    ).axes
    average, base = left.containers[1].lines[0].get_ydata()
    assert 0 < average < 0.5
    assert base == 2

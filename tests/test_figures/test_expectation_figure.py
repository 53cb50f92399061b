from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from figures import Curves, ErrorMap, approximation_error, expectation

RATIO = np.array([2.0, 10.0, 100.0])
POINTS = np.array([5.0, 50.0])
CURVES = Curves(
    title="ReLU",
    ratio=RATIO,
    exact=np.array([0.12, 0.124, 0.125]),
    printed={"outside": np.full(3, 0.4), "inside": np.array([0.5, 1.0, 2.0])},
    simulated_ratio=POINTS,
    simulated=np.array([0.123, 0.126]),
    stderr=np.array([0.001, 0.002]),
    limit=0.125,
)


def lines(ax):
    return {line.get_label(): line for line in ax.lines}


def test_curves_are_drawn_under_their_names():
    (ax,) = expectation([[CURVES]]).axes
    drawn = lines(ax)
    for label, values in {"exact": CURVES.exact, **CURVES.printed}.items():
        assert_array_equal(drawn[label].get_xdata(), RATIO)
        assert_array_equal(drawn[label].get_ydata(), values)
    (limit,) = (line for label, line in drawn.items() if label.startswith("TV/8"))
    assert_array_equal(limit.get_ydata(), [0.125, 0.125])
    assert ax.get_title() == "ReLU"


def test_bars_are_two_standard_errors():
    (ax,) = expectation([[CURVES]]).axes
    (bars,) = ax.containers
    markers, _, (segments,) = bars
    assert_array_equal(markers.get_xdata(), POINTS)
    assert_array_equal(markers.get_ydata(), CURVES.simulated)
    ends = np.array([segment[:, 1] for segment in segments.get_segments()])
    half = (ends[:, 1] - ends[:, 0]) / 2
    # A few roundings of numbers below one.
    assert_allclose(half, 2 * CURVES.stderr, rtol=0, atol=1e-15)


def test_every_row_and_column_has_its_panel():
    rows = [[replace(CURVES, title=f"{r}{c}") for c in "abc"] for r in "12"]
    titles = [ax.get_title() for ax in expectation(rows).axes]
    assert titles == ["1a", "1b", "1c", "2a", "2b", "2c"]


def test_settings_outside_the_figure_stay():
    before = dict(mpl.rcParams)
    expectation([[CURVES]])
    assert dict(mpl.rcParams) == before


@pytest.fixture
def error_map():
    k, sigma = np.geomspace(0.1, 10, 4), np.geomspace(0.01, 1, 3)
    return ErrorMap(title="GELU", k=k, sigma=sigma, error=0.3 + sigma[:, None] / k)


def test_error_is_mapped_in_per_cent(error_map):
    ax, bar = approximation_error([error_map]).axes
    mesh = ax.collections[0]
    assert_allclose(mesh.get_array(), 100 * error_map.error, rtol=1e-15)
    assert bar.get_ylabel() == "printed above exact (%)"
    assert [text.get_text() for text in ax.texts][-1] == "at least 30 %"


def test_maps_share_one_colour_scale(error_map):
    figure = approximation_error(
        [error_map, replace(error_map, error=2 * error_map.error)]
    )
    limits = {ax.collections[0].get_clim() for ax in figure.axes[:2]}
    assert len(limits) == 1

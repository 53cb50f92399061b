import numpy as np
import pytest
from numpy.testing import assert_array_equal

from figures.heat_map import heat_map
from figures.node_predictions import NodeCloud, node_predictions
from figures.rendering import rendered


def drawn(rows, layers):
    return heat_map(rows, layers=layers, columns="node", label="M-Loss").axes


def test_layers_run_upwards_and_a_narrow_one_ends_early():
    rows = [np.array([1.0, 2.0, 3.0]), np.array([4.0])]
    ax, bar = drawn(rows, ["first", "last"])
    values = ax.collections[0].get_array()
    assert_array_equal(values[0], rows[0])
    assert_array_equal(values.mask, [[False] * 3, [False, True, True]])
    assert values[1, 0] == 4
    assert [label.get_text() for label in ax.get_yticklabels()] == ["first", "last"]
    low, high = ax.get_ylim()
    assert low < high
    assert bar.get_ylabel() == "M-Loss"


def test_colours_start_at_zero_and_end_at_the_largest():
    ax, _ = drawn([np.array([1.0, 4.0])], ["only"])
    norm = ax.collections[0].norm
    assert (norm.vmin, norm.vmax) == (0, 4)
    assert norm(1.0) == pytest.approx(0.5)


def test_a_map_of_zeros_is_drawn():
    ax, _ = drawn([np.zeros(3)], ["only"])
    assert ax.collections[0].norm.vmax > 0


def test_of_many_layers_some_are_named():
    names = [f"layer{place}" for place in range(100)]
    ax, _ = drawn([np.ones(2)] * 100, names)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == names[::3]
    assert_array_equal(ax.get_yticks(), np.arange(1, 101, 3))


def cloud(title, predicted, measured):
    return NodeCloud(
        title, np.array(predicted), np.array(measured), np.array([1, 2, 3])
    )


def test_nodes_are_scattered_by_prediction_with_the_identity():
    one = cloud("density", [1.0, 10.0, 2.0], [2.0, 30.0, 0.0])
    ax = node_predictions([one]).axes[0]
    assert_array_equal(ax.collections[0].get_offsets(), [[1.0, 2.0], [10.0, 30.0]])
    assert ax.lines[0].get_xydata().tolist() == [[1.0, 1.0], [30.0, 30.0]]
    assert ax.get_title() == "density"
    assert ax.get_xscale() == ax.get_yscale() == "log"


def test_layers_have_the_colours_of_the_bar():
    one = cloud("density", [1.0, 1.0, 1.0], [2.0, 3.0, 4.0])
    ax, bar = node_predictions([one]).axes
    colors = ax.collections[0].get_facecolor()
    assert len(np.unique(colors, axis=0)) == 3
    assert bar.get_ylabel() == "layer"


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_every_prediction_has_one_panel(count):
    some = [cloud(f"p{i}", [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) for i in range(count)]
    titles = [ax.get_title() for ax in node_predictions(some).axes[:-1]]
    assert titles == [f"p{i}" for i in range(count)]


def test_a_prediction_of_zeros_leaves_its_panel_empty():
    some = cloud("some", [1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    figure = node_predictions([some, cloud("none", [0.0] * 3, [1.0] * 3)])
    assert len(figure.axes[1].collections[0].get_offsets()) == 0
    assert len(figure.axes[1].lines) == 0
    rendered(figure, kind="svg")

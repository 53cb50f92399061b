import numpy as np
from numpy.testing import assert_array_equal
from report_scores import FIELDS, four_layers, score, site

from mloss.report.drawings import loss_map, prediction_clouds


def test_the_map_has_the_nodes_of_every_layer():
    scored = four_layers()
    ax = loss_map(scored).axes[0]
    rows = np.stack([one.node.numpy() for one in scored.sites])
    assert_array_equal(ax.collections[0].get_array(), rows)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "1", "2", "3"]
    assert ax.get_xlabel() == "node, in order"
    by_loss = loss_map(scored, by_loss=True).axes[0]
    assert_array_equal(by_loss.collections[0].get_array(), rows[:, ::-1])
    assert by_loss.get_xlabel() == "node, the worst first"


def test_every_prediction_is_drawn_over_the_nodes_that_have_it():
    first, second = site("a"), site("b", prediction=None)
    *panels, _ = prediction_clouds(score(first, second)).axes
    points = {ax.get_title(): ax.collections[0].get_offsets() for ax in panels}
    assert list(points) == ["paper", "uniform", "density"]
    assert len(points["paper"]) == 6
    expected = np.column_stack([first.prediction, first.node])
    assert_array_equal(points["uniform"], expected)


def test_of_many_nodes_some_are_drawn():
    scored = score(site("a", node=np.arange(1.0, 7.0)), site("b", node=(7.0, 8.0)))
    ax = prediction_clouds(scored, step=3).axes[0]
    assert ax.collections[0].get_offsets()[:, 1].tolist() == [1.0, 4.0, 7.0]


def test_nothing_is_drawn_without_predictions_or_without_loss():
    assert prediction_clouds(score(site(**dict.fromkeys(FIELDS)))) is None
    assert prediction_clouds(score(site(node=(0.0, 0.0)))) is None

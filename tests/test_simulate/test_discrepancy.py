import numpy as np
import pytest

from simulate.activations import leaky_relu, relu
from simulate.backends import NUMPY
from simulate.discrepancy import Discrepancy


def loss_of(h, weights, f=relu, eps=None):
    """Loss of one sample's pre-activations h [q, d]."""
    loss = Discrepancy(f, np.array(weights), eps, NUMPY)
    return loss(np.array(h)[:, :, None]).tolist()


@pytest.mark.parametrize(
    ("h", "weights", "expected"),
    [
        ([1.0, -1.0], [0.5, 0.5], 0.5),  # relu(0) - (1 + 0)/2
        ([1.0, -1.0], [0.75, 0.25], 0.25),  # relu(1/2) - 3/4
        ([3.0, -1.0], [0.5, 0.5], 0.5),  # relu(1) - 3/2
        ([3.0, 1.0], [0.5, 0.5], 0.0),
        ([2.0, 4.0, -8.0], [0.25, 0.5, 0.25], 2.0),  # relu(1/2) - 5/2
    ],
)
def test_a_node_by_hand(h, weights, expected):
    assert loss_of(np.array(h)[:, None], weights) == [expected]


def test_a_layer_is_the_norm_over_its_nodes():
    # Nodes lose 3/2 and 2: relu(0) - 3/2 and relu(0) - 2.
    assert loss_of([[3.0, 4.0], [-3.0, -4.0]], [0.5, 0.5]) == [2.5]


def test_the_relative_forms_divide_by_the_merged_output():
    # Node: |relu(1) - 3/2| over relu(1) + 1/4.
    assert loss_of([[3.0], [-1.0]], [0.5, 0.5], eps=0.25) == [0.5 / 1.25]
    # Layer: losses 3/2 and 1/2, merged outputs 0 and 1.
    found = loss_of([[3.0, 3.0], [-3.0, -1.0]], [0.5, 0.5], eps=0.25)
    assert found == [np.sqrt(2.5) / 1.25]


def test_rounding_on_a_line_is_no_loss():
    rng = np.random.default_rng(0)
    h = -1e8 + rng.normal(size=(3, 1, 10_000))
    loss = Discrepancy(leaky_relu, np.full(3, 1 / 3), None, NUMPY)
    flat = np.ones((1, 10_000), dtype=bool)
    assert loss(h).max() > 0
    assert loss(h, flat).max() == 0
    # A bend between the models is a loss all the same.
    h[0] += 2e8
    assert (loss(h, flat) == loss(h)).all()

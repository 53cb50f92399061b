import pytest
import torch
from small_transformers import ARCHITECTURES, bert, clip, llama, small, vit
from torch import nn

from mloss.inference import evaluating
from mloss.merging.from_samples.layers_entered import layers_entered
from mloss.merging.from_samples.linear_layers import linear_layers
from mloss.sites import find_sites

BEHIND = {
    clip: ("vision_model.encoder.layers.{}.mlp.fc1", "fc2"),
    vit: ("layers.{}.mlp.fc1", "fc2"),
    bert: ("encoder.layer.{}.intermediate.dense", "output.dense"),
    llama: ("layers.{}.mlp.gate_proj", "down_proj"),
}


def entered(model, batch):
    with evaluating(model):
        return layers_entered(model, find_sites(model, batch), batch)


@pytest.mark.parametrize(("build", "batch"), ARCHITECTURES)
def test_the_second_layer_of_an_mlp_and_nothing_behind_a_pooler(build, batch):
    model = small(build)
    found = {layer: names for layer, names in entered(model, batch()).items() if names}
    last = {"bert": "output.dense"}.get(build.__name__, BEHIND[build][1])
    assert len(found) == 2
    for layer, names in found.items():
        (name,) = names
        assert name.endswith(last)
        assert name.split(".mlp.")[0].split(".output.")[0] in layer


def test_one_output_may_enter_two_layers_and_dropout_is_no_obstacle():
    class Forked(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(3, 4)
            self.dropout = nn.Dropout(0.5)
            self.left, self.right = nn.Linear(4, 2), nn.Linear(4, 2)
            self.apart = nn.Linear(3, 2)

        def forward(self, x):
            hidden = self.dropout(torch.relu_(self.first(x)))
            return self.left(hidden) + self.right(hidden) + self.apart(x)

    assert entered(Forked(), torch.randn(2, 3)) == {"first": ("left", "right")}


def test_an_output_that_is_changed_first_enters_nothing():
    model = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.LayerNorm(4), nn.Linear(4, 2))
    assert entered(model, torch.randn(2, 3)) == {"0": ()}


class Branches(nn.Module):
    """ReLU on the left and on the right, each before a layer of its own."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(3, 4)
        self.right_out, self.left_out = nn.Linear(4, 2), nn.Linear(4, 2)
        self.zero = nn.Linear(4, 2)

    def forward(self, x):
        left, right = torch.relu(self.left(x)), torch.relu(self.right(x))
        rest = self.zero(torch.zeros_like(left))
        return self.right_out(right) + self.left_out(left) + rest


def test_nodes_that_are_dead_on_the_example_enter_their_own_layers_only():
    model = Branches()
    for side in (model.left, model.right):
        nn.init.constant_(side.bias, -100.0)
    found = entered(model, torch.randn(1, 3))
    assert found == {"left": ("left_out",), "right": ("right_out",)}


class _Never(nn.Module):
    """ReLU from beyond what anyone would draw: all that is drawn is zero."""

    def forward(self, h):
        return torch.relu(h - 7)


def test_outputs_that_cannot_be_told_apart_are_refused():
    class Hidden(Branches):
        def __init__(self):
            super().__init__()
            self.bend, self.bend_again = _Never(), _Never()

        def forward(self, x):
            left, right = self.bend(self.left(x)), self.bend_again(self.right(x))
            return self.left_out(left) + self.right_out(right)

    with pytest.raises(ValueError, match="'left' and 'right' cannot be told apart"):
        entered(Hidden(), torch.randn(2, 3))


def test_a_layer_that_runs_by_the_numbers_is_refused():
    class Routed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 4)
            self.last = nn.Linear(4, 2)
            nn.init.constant_(self.first.bias, -100.0)

        def forward(self, x):
            hidden = torch.relu(self.first(x))
            if not hidden.any():
                hidden = torch.relu(self.second(hidden))
            return self.last(hidden)

    with pytest.raises(ValueError, match="whether 'second' runs depends on"):
        entered(Routed(), torch.randn(1, 3))


def test_linear_layers_in_forward_order_without_tied_ones_and_repeated_ones():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 5, bias=False)
            self.embedding = nn.Embedding(5, 4)
            self.head.weight = self.embedding.weight
            self.last, self.first = nn.Linear(4, 4), nn.Linear(4, 4)
            self.twice, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, ids):
            x = self.first(self.embedding(ids))
            return self.head(self.last(self.twice(self.twice(x))))

    model = Network()
    ids = torch.tensor([[0, 1]])
    assert linear_layers(model, model.state_dict(), ids) == ["first", "last"]

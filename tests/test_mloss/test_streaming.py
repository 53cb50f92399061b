from collections.abc import Mapping

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mloss import score
from mloss.merging import average
from mloss.streaming import AveragedState, streamed


class OnDisk(Mapping):
    """A state whose entries exist only while somebody holds them."""

    def __init__(self, state):
        self._state, self.reads = state, []

    def __getitem__(self, key):
        self.reads.append(key)
        return self._state[key].clone()

    def __iter__(self):
        return iter(self._state)

    def __len__(self):
        return len(self._state)


class Attentive(nn.Module):
    """Tensors at the top, a batch norm, and a module that uses a child's weights."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.randn(4))
        self.norm = nn.BatchNorm1d(4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.register_buffer("hidden", torch.ones(4), persistent=False)

    def forward(self, x):
        x = self.norm((x + self.shift * self.hidden).mT).mT
        return self.attention(x, x, x)[0]


def built(build, seed=0):
    torch.manual_seed(seed)
    return build().double().eval()


def mlp():
    return nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 2))


@pytest.mark.parametrize("build", [Attentive, mlp])
def test_it_computes_what_the_loaded_model_does(build):
    model, other = built(build), built(build, seed=1)
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad(), streamed(model, OnDisk(other.state_dict())):
        assert torch.equal(model(x), other(x))
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert model(x).grad_fn is not None


def test_a_model_without_memory_of_its_own():
    other = built(mlp)
    with torch.device("meta"):
        skeleton = mlp()
    x = torch.randn(5, 4, dtype=torch.float64)
    with torch.no_grad(), streamed(skeleton, other.state_dict()):
        assert torch.equal(skeleton(x), other(x))
    assert {p.device.type for p in skeleton.parameters()} == {"meta"}


def test_after_an_error_the_model_is_as_it_was():
    model, other = built(mlp), built(mlp, seed=1)
    weight = model[0].weight
    with streamed(model, other.state_dict()), pytest.raises(RuntimeError):
        model(torch.randn(5, 3, dtype=torch.float64))
    assert model[0].weight is weight
    assert not model[0]._forward_pre_hooks


def test_precision_and_device_are_as_asked_for():
    model = built(mlp).float()
    state = {key: value.double() for key, value in model.state_dict().items()}
    x = torch.randn(5, 4, dtype=torch.bfloat16)
    with torch.no_grad(), streamed(model, state, dtype=torch.bfloat16):
        assert model(x).dtype == torch.bfloat16


def test_the_averaged_state_is_the_average():
    base, *sources = (built(Attentive, seed).state_dict() for seed in range(4))
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    lazy = AveragedState(base, sources, weights=weights)
    assert_close(dict(lazy), average(base, sources, weights=weights), rtol=0, atol=0)
    assert len(lazy) == len(base)


def test_averages_are_kept_as_far_as_there_is_room(monkeypatch):
    base, *sources = (OnDisk(built(mlp, seed).state_dict()) for seed in range(3))
    weights = torch.tensor([0.5, 0.5], dtype=torch.float64)
    kept = AveragedState(base, sources, weights=weights)
    first, again = kept["0.weight"], kept["0.weight"]
    assert sources[0].reads == ["0.weight"]
    monkeypatch.setattr("mloss.streaming._KEPT", 0)
    fresh = AveragedState(base, sources, weights=weights)
    for value in (again, fresh["0.weight"], fresh["0.weight"]):
        assert torch.equal(value, first)
    assert sources[0].reads == ["0.weight"] * 3


def test_averages_are_the_same_in_pieces(monkeypatch):
    base, *sources = (built(mlp, seed).state_dict() for seed in range(3))
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    monkeypatch.setattr("mloss.tiles._AT_ONCE", 5)
    lazy = AveragedState(base, sources, weights=weights)
    assert_close(dict(lazy), average(base, sources, weights=weights), rtol=0, atol=0)


def test_arguments_are_moved_to_the_precision_asked_for():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x, *, scale, order):
            return self.layer(x[:, order] * scale)

    model, x = built(Scaled).float(), torch.randn(5, 4)
    with torch.no_grad(), streamed(model, model.state_dict(), dtype=torch.float64):
        out = model(x, scale=torch.ones(4), order=torch.arange(4))
    assert out.dtype == torch.float64


def test_scores_of_states_on_disk_and_a_skeleton():
    base, *sources = (built(mlp, seed) for seed in range(3))
    data = torch.randn(20, 4, dtype=torch.float64)
    with torch.device("meta"):
        skeleton = mlp()
    ours = score(
        OnDisk(base.state_dict()),
        [OnDisk(source.state_dict()) for source in sources],
        data,
        model=skeleton,
    )
    loaded = score(base, sources, data)
    assert torch.equal(ours.sites[0].node, loaded.sites[0].node)
    assert ours.samples == 20

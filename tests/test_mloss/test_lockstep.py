from collections.abc import Mapping

import pytest
import torch
from small_transformers import ARCHITECTURES, near, small
from torch import nn

from mloss.inference import called, evaluating, first_tensor
from mloss.lockstep import in_lockstep
from mloss.streaming import holders


class Counted(Mapping):
    """A state that counts how often each entry is read."""

    def __init__(self, state):
        self._state, self.reads = state, dict.fromkeys(state, 0)

    def __getitem__(self, key):
        self.reads[key] += 1
        return self._state[key].clone()

    def __iter__(self):
        return iter(self._state)

    def __len__(self):
        return len(self._state)


class Nested(nn.Module):
    """A module with tensors of its own around one that has some too."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.randn(4))
        self.inner = nn.Linear(4, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        x = self.inner(x + self.shift) + self.shift
        return self.attention(x, x, x)[0]


def nested():
    return Nested()


def numbers():
    return torch.randn(3, 2, 4, dtype=torch.float64)


@pytest.mark.parametrize(
    ("build", "batch"), [*ARCHITECTURES, pytest.param(nested, numbers, id="nested")]
)
def test_every_batch_comes_out_as_alone_and_each_entry_is_read_once(build, batch):
    model = small(build)
    inputs = [batch() for _ in range(3)]
    (other,) = near(model.state_dict(), q=1, step=0.3)
    state = Counted(other)
    own = {key: value.clone() for key, value in model.state_dict().items()}
    with evaluating(model):
        outputs = in_lockstep(model, state, inputs)
        assert all(torch.equal(v, own[k]) for k, v in model.state_dict().items())
        model.load_state_dict(other)
        alone = [called(model, one) for one in inputs]
    for together, by_itself in zip(outputs, alone, strict=True):
        pair = (first_tensor(o, owner="") for o in (together, by_itself))
        assert torch.equal(*pair)
    assert max(state.reads.values()) == 1


def test_a_gate_sees_all_batches_before_the_parameters_are_looked_up():
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1)).double()
    state, inputs = dict(model.state_dict()), list(torch.randn(3, 4, 2).double())
    hidden = [torch.tanh(x @ state["0.weight"].T + state["0.bias"]) for x in inputs]
    seen = {}

    def gate(entering):
        seen.update(entering)
        state["2.bias"] = torch.full((1,), 7.0, dtype=torch.float64)

    with evaluating(model):
        outputs = in_lockstep(model, state, inputs, before={"2": gate})
    assert list(seen) == [0, 1, 2]
    for h, entered, output in zip(hidden, seen.values(), outputs, strict=True):
        torch.testing.assert_close(entered, h, rtol=1e-14, atol=1e-15)
        torch.testing.assert_close(output, h @ state["2.weight"].T + 7)


def test_runs_end_at_the_last_gate_where_nobody_wants_the_outputs():
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
    state = Counted(model.state_dict())
    seen = []
    gates = {"0": lambda _: seen.append("0"), "1": lambda _: seen.append("1")}
    with evaluating(model):
        assert not in_lockstep(
            model, state, [torch.ones(1, 2)] * 2, before=gates, to_the_end=False
        )
    assert seen == ["0", "1"]
    assert [key for key, count in state.reads.items() if count] == [
        "0.weight",
        "0.bias",
    ]
    assert all(isinstance(p, nn.Parameter) for p in model.parameters())


class Choosing(nn.Module):
    """Two ways through, by the sign of what comes in."""

    def __init__(self):
        super().__init__()
        self.up, self.down, self.out = (nn.Linear(1, 1) for _ in range(3))

    def forward(self, x):
        return self.out(self.up(x) if x.sum() > 0 else self.down(x))


def test_batches_that_take_different_ways_all_arrive():
    model = Choosing()
    inputs = [torch.ones(1, 1), -torch.ones(1, 1), 2 * torch.ones(1, 1)]
    together = []
    with evaluating(model):
        outputs = in_lockstep(
            model,
            model.state_dict(),
            inputs,
            before={name: lambda x: together.append(set(x)) for name in ("up", "down")},
        )
        assert all(map(torch.equal, outputs, map(model, inputs)))
    assert together == [{0, 2}, {1}]


def test_no_batch_is_left_behind_on_another_way():
    model = Choosing()
    inputs = [torch.ones(1, 1), -torch.ones(1, 1), 2 * torch.ones(1, 1)]
    seen = []
    with evaluating(model):
        in_lockstep(
            model,
            model.state_dict(),
            inputs,
            before={"out": seen.extend},
            to_the_end=False,
        )
    assert sorted(seen) == [0, 1, 2]


@pytest.mark.parametrize("at", ["gate", "model"])
def test_an_error_leaves_the_model_as_it_was(at):
    model = Nested()
    hooks = {name: len(m._forward_pre_hooks) for name, m in model.named_modules()}
    own = dict(model.named_parameters())

    def gate(_):
        raise ZeroDivisionError

    width = 4 if at == "gate" else 3
    inputs = [torch.randn(2, 2, 4), torch.randn(2, 2, width)]
    with evaluating(model), pytest.raises((ZeroDivisionError, RuntimeError)):
        in_lockstep(
            model,
            {key: value + 1 for key, value in model.state_dict().items()},
            inputs,
            before={"attention": gate} if at == "gate" else None,
        )
    assert dict(model.named_parameters()).keys() == own.keys()
    assert all(p is own[name] for name, p in model.named_parameters())
    assert hooks == {n: len(m._forward_pre_hooks) for n, m in model.named_modules()}


def test_an_unknown_gate_is_named():
    with pytest.raises(KeyError, match="nowhere"):
        in_lockstep(Nested(), {}, [], before={"nowhere": print})


def test_holders_are_the_modules_with_tensors():
    assert set(holders(Nested())) == {"", "inner", "attention", "attention.out_proj"}

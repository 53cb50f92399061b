import math
from collections.abc import Mapping

import pytest
import torch
from torch import nn

from mloss.states import matched, state_of


def state(**changes):
    entries = {
        "weight": torch.ones(2, 3),
        "bias": torch.zeros(2),
        "steps": torch.tensor(7),
    }
    return entries | changes


def test_modules_and_state_dicts_are_the_same_to_it():
    module = nn.BatchNorm1d(3)
    base, sources = matched(module, [module.state_dict(), module])
    assert list(base) == list(module.state_dict())
    assert all(torch.equal(s[k], base[k]) for s in sources for k in base)
    assert not any(value.requires_grad for value in base.values())


DIFFERENT = [
    ({"bias": torch.zeros(3)}, r"'bias' has shape .*\[3\].* in source 1"),
    ({"bias": torch.zeros(2).double()}, "'bias' has dtype .*64 in source 1"),
    ({"bias": torch.zeros(2, device="meta")}, "'bias' has device meta"),
    ({"bias": torch.tensor([0.0, math.nan])}, "'bias' of source 1 .*not finite"),
    ({"bias": torch.tensor([0.0, math.inf])}, "'bias' of source 1 .*not finite"),
    ({"steps": torch.tensor(8)}, "'steps' .*differs between source 1"),
]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ({"weight": torch.ones(2, 3)}, "source 1 has no 'bias'"),
        (state(extra=torch.ones(1)), "source 1 has 'extra'"),
        *((state(**change), complaint) for change, complaint in DIFFERENT),
    ],
)
def test_a_source_that_does_not_match_is_named(source, complaint):
    with pytest.raises(ValueError, match=complaint):
        matched(state(), [state(), source])


def test_a_base_that_is_not_finite_is_named():
    with pytest.raises(ValueError, match="'bias' of the base"):
        matched(state(bias=torch.tensor([math.nan, 0.0])), [state()])


class OnDisk(Mapping):
    """A state that notes what is read of it."""

    def __init__(self, entries):
        self.entries, self.reads = entries, []

    def __getitem__(self, key):
        self.reads.append(key)
        return self.entries[key]

    def __iter__(self):
        return iter(self.entries)

    def __len__(self):
        return len(self.entries)


def test_what_is_on_disk_is_read_when_it_is_asked_for():
    base, source = OnDisk(state()), OnDisk(state())
    _, (other,) = matched(base, [source])
    assert base.reads == source.reads == []
    assert torch.equal(other["weight"], torch.ones(2, 3))
    assert torch.equal(other["weight"], torch.ones(2, 3))
    assert source.reads == ["weight", "weight"]
    assert base.reads == ["weight"]


@pytest.mark.parametrize(("change", "complaint"), DIFFERENT)
def test_what_is_on_disk_is_looked_at_as_it_is_read(change, complaint):
    base, good, bad = OnDisk(state()), OnDisk(state()), OnDisk(state(**change))
    _, (first, second) = matched(base, [good, bad])
    assert torch.equal(first["bias"], torch.zeros(2))
    with pytest.raises(ValueError, match=complaint):
        dict(second)


def test_names_on_disk_are_compared_at_once():
    with pytest.raises(ValueError, match="source 0 has no 'bias'"):
        matched(OnDisk(state()), [OnDisk({"weight": torch.ones(2, 3)})])


def test_what_is_on_disk_says_where():
    bad = OnDisk(state(bias=torch.tensor([0.0, math.nan])))
    bad.source = "models/one"
    _, (source,) = matched(OnDisk(state()), [bad])
    with pytest.raises(ValueError, match=r"'bias' of models/one .*not finite"):
        source["bias"]


def test_a_lazy_entry_that_is_no_tensor():
    lazy = state_of(OnDisk({"epoch": 3}))
    with pytest.raises(TypeError, match="'epoch' must be a tensor, got int"):
        lazy["epoch"]


def test_no_sources():
    with pytest.raises(ValueError, match="sources must hold at least one"):
        matched(state(), [])


@pytest.mark.parametrize("sources", [state(), nn.Linear(3, 2)])
def test_one_model_is_not_a_sequence_of_models(sources):
    with pytest.raises(TypeError, match="sequence of models"):
        matched(state(), sources)


def test_what_is_no_model():
    with pytest.raises(TypeError, match="got int"):
        state_of(3)
    with pytest.raises(TypeError, match="'epoch' must be a tensor, got int"):
        state_of({"epoch": 3})

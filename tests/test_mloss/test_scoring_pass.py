"""Batches that run together, and what is read of the models for them."""

from collections import Counter
from collections.abc import Mapping

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mloss import score

EPS = torch.finfo(torch.float64).eps


class Watched(Mapping):
    """A state that counts how often each entry is looked up."""

    def __init__(self, state):
        self._state, self.reads = state, Counter()

    def __getitem__(self, key):
        self.reads[key] += 1
        return self._state[key]

    def __iter__(self):
        return iter(self._state)

    def __len__(self):
        return len(self._state)


class Branching(nn.Module):
    """Some samples pass a layer that others leave out."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 5)
        self.act, self.last = nn.GELU(), nn.Linear(6, 2)

    def forward(self, x, flag):
        h = self.act(self.first(x))
        return self.act(self.second(h)) if flag.all() else self.last(h)


def mlp():
    return nn.Sequential(
        nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)
    )


def family(build=mlp, *, q=3):
    torch.manual_seed(0)
    base, *sources = (build().double() for _ in range(q + 1))
    return base, sources


def samples(count):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 4, generator=generator, dtype=torch.float64)


def reads(data, **options):
    base, sources = family()
    first, *others = (Watched(m.state_dict()) for m in (base, *sources))
    score(first, others, data, model=mlp().double(), **options)
    return first.reads, others[0].reads


def test_every_parameter_is_read_once_for_all_batches(monkeypatch):
    monkeypatch.setattr("mloss.streaming._KEPT", 0)  # nothing is remembered
    data = samples(40)
    in_one, in_ten = reads(data), reads(data.split(4))
    assert in_one == in_ten
    in_rounds = reads(data.split(4), together=20)
    for whole, parts, layer in zip(in_one, in_rounds, ("2", "0"), strict=True):
        assert parts[f"{layer}.weight"] > whole[f"{layer}.weight"]
    # Behind the last site nothing is read of a source but to check it.
    assert in_ten[1]["4.weight"] < in_ten[1]["0.weight"]


@pytest.mark.parametrize("together", [1, 7, 16, 1000])
def test_scores_do_not_depend_on_what_runs_together(together):
    base, sources = family()
    data = samples(40)
    ours = score(base, sources, data.split(5), together=together)
    whole = score(base, sources, data)
    assert ours.samples == 40
    for site, reference in zip(ours.sites, whole.sites, strict=True):
        # Means of 40 numbers, added in another order.
        assert_close(site.node, reference.node, rtol=64 * EPS, atol=0)
        assert_close(site.prediction, reference.prediction, rtol=1e4 * EPS, atol=0)


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({"at_least": 10}, 10),
        ({"at_least": 12}, 15),
        ({"at_least": 30, "together": 20}, 40),
        ({}, 5),
    ],
)
def test_until_an_error_that_any_samples_have(options, taken):
    base, sources = family()
    ours = score(base, sources, samples(60).split(5), until=100.0, **options)
    assert ours.samples == taken


def test_batches_may_take_different_ways():
    base, sources = family(Branching)
    data = [
        {"x": samples(4), "flag": torch.ones(4, dtype=torch.bool)},
        {"x": samples(6)[4:], "flag": torch.zeros(2, dtype=torch.bool)},
    ]
    first, second = score(base, sources, data).sites
    (alone,) = score(base, sources, data[1]).sites
    assert_close(
        first.node * 6 - alone.node * 2,
        score(base, sources, data[0]).sites[0].node * 4,
        rtol=256 * EPS,
        atol=0,
    )
    assert torch.equal(second.node, score(base, sources, data[0]).sites[1].node)

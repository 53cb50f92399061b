import math
from functools import partial

import pytest
import torch
from random_models import SHAPES, random_models, random_weights
from torch.testing import assert_close

from mloss.merging import dare, task_arithmetic, ties
from mloss.merging.methods.dare_linear import dare_linear
from mloss.merging.methods.dare_ties import dare_ties
from mloss.merging.pruning.drop import Chance, dropped_sources
from mloss.merging.pruning.node_rates import NodeRates

EPS = torch.finfo(torch.float64).eps
METHODS = [dare, dare_linear, dare_ties]
# A few roundings of sums of a few numbers below 16, over the density.
close = partial(assert_close, rtol=0, atol=16 * 16 * EPS / 0.3)


def chance(seed):
    return torch.Generator().manual_seed(seed)


def dropped(base, sources, *, seed, density=0.3):
    """The source models that chance makes of these."""
    return dropped_sources(base, sources, generator=chance(seed), density=density)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(3))
def test_one_source_kept_whole_is_returned(method, seed):
    base, sources = random_models(seed, q=1)
    merged = method(base, sources, generator=chance(seed), density=1)
    for key in SHAPES:
        close(merged[key], sources[0][key])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_same_chance_gives_the_same_merge(method, dtype):
    base, sources = random_models(0, q=3, dtype=dtype)
    first, again, other = (
        method(base, sources, generator=chance(seed)) for seed in (1, 1, 2)
    )
    assert {value.dtype for value in first.values()} == {dtype, torch.int64}
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["up.weight"], other["up.weight"])


def test_all_kept_it_is_task_arithmetic():
    base, sources = random_models(5, q=3)
    weights = random_weights(5, q=3)
    options = {"weights": weights, "scale": 0.7}
    merged = dare_linear(base, sources, generator=chance(8), density=1, **options)
    plain = task_arithmetic(base, sources, **options)
    assert all(torch.equal(merged[key], plain[key]) for key in plain)


def test_after_dropping_comes_the_whole_of_ties():
    base, sources = random_models(0, q=3)
    options = {
        "weights": random_weights(0, q=3),
        "scale": 0.7,
        "trimming": "model",
        "combine": "disjoint_mean",
    }
    merged = dare_ties(
        base, sources, generator=chance(3), density=0.3, trimmed_to=0.2, **options
    )
    expected = ties(base, dropped(base, sources, seed=3), density=0.2, **options)
    assert all(torch.equal(merged[key], expected[key]) for key in expected)
    steps = torch.cat([(merged[key] - base[key]).reshape(-1) for key in SHAPES])
    assert 0 < (steps != 0).sum() <= 3 * math.floor(0.2 * len(steps) + 0.5)


def test_untrimmed_it_is_the_election_alone():
    base, sources = random_models(0, q=1)
    for method in (dare, dare_ties, dare_linear):
        merged = method(base, sources, generator=chance(0), density=0.3)
        step = sources[0]["up.weight"] - base["up.weight"]
        ratio = (merged["up.weight"] - base["up.weight"]) / step
        kept = ratio.abs() > 1
        assert 0 < kept.sum() < kept.numel()
        # The least step is above 1e-3.
        expected = kept.double() / 0.3
        assert_close(ratio, expected, rtol=0, atol=16 * 16 * EPS / 0.3 / 1e-3)


@pytest.mark.parametrize("density", [0.1, 0.5])
def test_the_mean_over_the_drops_is_the_task_vector(density):
    number = 200_000
    base, source = {"w": torch.zeros(number)}, {"w": torch.ones(number)}
    kept = dropped(base, [source, source], seed=0, density=density)
    values = torch.stack([state["w"] for state in kept])
    # Of n drops the mean is off by sqrt((1/density - 1) / n); of two sources, drawn
    # apart, the covariance of n pairs by (1/density - 1) / sqrt(n).
    spread = 1 / density - 1
    means = values.mean(1)
    assert ((means - 1).abs() < 5 * math.sqrt(spread / number)).all()
    covariance = ((values[0] - 1) * (values[1] - 1)).mean()
    assert abs(covariance) < 5 * spread / math.sqrt(number)


@pytest.mark.parametrize("cut", [1, 8, 999])
def test_drops_do_not_depend_on_the_pieces(cut):
    whole = torch.ones(2, 1000)
    one, other = (Chance(chance(0), q=2).of("entry") for _ in range(2))
    pieces = [other(part, 0.5) for part in whole.split([cut, 1000 - cut], dim=1)]
    assert torch.equal(one(whole, 0.5), torch.cat(pieces, 1))


def test_sources_of_one_entry_are_dropped_from_apart():
    whole = torch.ones(2, 1000)
    first, second = Chance(chance(0), q=2).of("entry")(whole, 0.5) > 0
    # Five standard deviations of the number of 1000 entries that both keep or drop.
    assert abs((first == second).sum() - 500) < 5 * math.sqrt(1000 / 4)


@pytest.mark.parametrize("method", [dare, dare_linear])
def test_nodes_with_rates_are_kept_by_these(method):
    base = {"w": torch.zeros(3, 50_000), "b": torch.zeros(3), "other": torch.zeros(9)}
    source = {key: value + 1 for key, value in base.items()}
    rates = NodeRates({"layer": ("w", "b")}, {"layer": torch.tensor([0.0, 0.25, 1.0])})
    merged = method(base, [source], generator=chance(0), density=1, rates=rates)
    assert merged["w"][0].eq(0).all()
    assert merged["w"][2].eq(1).all()
    assert merged["b"][[0, 2]].tolist() == [0, 1]
    assert set(merged["w"][1].tolist()) == {0, 4}
    # Five standard deviations of the share of 50000 that are kept.
    share = (merged["w"][1] > 0).double().mean()
    assert abs(share - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 50_000)
    assert merged["other"].eq(1).all()


def test_what_to_trim_to_is_no_fraction():
    base, sources = random_models(0, q=2)
    with pytest.raises(ValueError, match=r"trimmed_to, .* in \[0, 1\], got 20"):
        dare_ties(base, sources, generator=chance(0), trimmed_to=20)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("options", "error", "complaint"),
    [
        ({"density": 0}, ValueError, r"density must be a fraction in \(0, 1\], got 0"),
        ({"density": 1.5}, ValueError, r"density must be a fraction in \(0, 1\]"),
        ({"scale": math.nan}, ValueError, "scale must be finite"),
        ({"generator": 0}, TypeError, "generator must be a torch.Generator"),
    ],
)
def test_a_bad_call_is_named(method, options, error, complaint):
    base, sources = random_models(0, q=2)
    with pytest.raises(error, match=complaint):
        method(base, sources, **{"generator": chance(0)} | options)

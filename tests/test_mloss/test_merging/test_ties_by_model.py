import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_models import random_models, random_weights
from torch.testing import assert_close

from mloss.merging import ties
from mloss.merging.pruning.node_rates import NodeRates

EPS = torch.finfo(torch.float64).eps
seeds = st.integers(0, 2**31)
densities = st.floats(0, 1)
KEYS = ("up.weight", "up.bias", "kernel", "scalar")


def flat(state, keys=KEYS):
    return torch.cat([state[key].reshape(-1) for key in keys])


def steps(base, merged, keys=KEYS):
    return flat(merged, keys) - flat(base, keys)


def by_hand(base, sources, weights, *, count, divide):
    """TIES on lists of numbers, `count` of each list kept."""
    vectors = []
    for source in sources:
        vector = [s - b for s, b in zip(source, base, strict=True)]
        least = sorted(map(abs, vector), reverse=True)[count - 1] if count else math.inf
        vectors.append([x if abs(x) >= least else 0.0 for x in vector])
    merged = []
    for start, *entry in zip(base, *vectors, strict=True):
        mass = sum(w * t for w, t in zip(weights, entry, strict=True))
        agree = [(w, t) for w, t in zip(weights, entry, strict=True) if t * mass > 0]
        share = sum(w for w, _ in agree) if divide and agree else 1
        merged.append(start + sum(w * t for w, t in agree) / share)
    return merged


@pytest.mark.parametrize("combine", ["weighted_sum", "disjoint_mean"])
@given(seed=seeds, q=st.integers(1, 4), density=densities)
def test_one_budget_for_all_tensors_entry_by_entry(combine, seed, q, density):
    base, sources = random_models(seed, q=q)
    weights = random_weights(seed, q=q)
    options = {"density": density, "combine": combine, "weights": weights}
    merged = ties(base, sources, trimming="model", **options)
    expected = by_hand(
        flat(base).tolist(),
        [flat(source).tolist() for source in sources],
        weights,
        count=math.floor(density * len(flat(base)) + 0.5),
        divide=combine == "disjoint_mean",
    )
    # A few roundings of sums of a few numbers below 16.
    expected = torch.tensor(expected, dtype=torch.float64)
    assert_close(flat(merged), expected, rtol=0, atol=16 * 16 * EPS)


def ties_of_the_authors(vectors, *, keep):
    """Threshold, election and disjoint mean as in their program, all of a model."""
    size = vectors.shape[1]
    threshold = vectors.abs().kthvalue(size - int(size * keep), dim=1, keepdim=True)
    vectors = vectors * (vectors.abs() >= threshold.values)
    signs = vectors.sum(0).sign()
    signs[signs == 0] = signs.sum().sign()
    agreeing = vectors * torch.where(signs > 0, vectors > 0, vectors < 0)
    return agreeing.sum(0) / (agreeing != 0).sum(0).clamp(min=1)


@pytest.mark.parametrize("seed", range(3))
def test_the_authors_program_keeps_one_entry_more(seed):
    base, sources = random_models(seed, q=3)
    vectors = torch.stack([steps(base, source) for source in sources])
    size = vectors.shape[1]
    merged = ties(base, sources, trimming="model", density=(int(0.2 * size) + 1) / size)
    expected = ties_of_the_authors(vectors, keep=0.2)
    assert_close(steps(base, merged), expected, rtol=0, atol=16 * 16 * EPS)


@given(seed=seeds, density=densities)
def test_of_one_tensor_it_is_the_budget_of_the_tensor(seed, density):
    base, sources = random_models(seed, q=3, shapes={"only": (5, 4)})
    whole, own = (
        ties(base, sources, density=density, trimming=trimming)
        for trimming in ("model", "tensor")
    )
    assert torch.equal(whole["only"], own["only"])


def test_with_the_smallest_that_stays_all_of_its_size_stay():
    base = {"a": torch.zeros(3), "b": torch.zeros(3)}
    source = {"a": torch.tensor([1.0, -2, 3]), "b": torch.tensor([2.0, 0, -2])}
    merged = ties(base, [source], density=2 / 6, trimming="model")
    assert merged["a"].tolist() == [0, -2, 3]
    assert merged["b"].tolist() == [2, 0, -2]


@given(seed=seeds)
def test_all_and_nothing(seed):
    base, sources = random_models(seed, q=1)
    nothing = ties(base, sources, density=0, trimming="model")
    assert torch.equal(flat(nothing), flat(base))
    everything = ties(base, sources, density=1, trimming="model")
    assert_close(flat(everything), flat(sources[0]), rtol=0, atol=16 * EPS)


@pytest.mark.parametrize("trimming", ["tensor", "model"])
def test_nodes_with_rates_are_trimmed_by_row_and_bias(trimming):
    base, sources = random_models(0, q=2)
    keys = ("up.weight", "up.bias")
    rates = torch.linspace(0, 1, 7, dtype=torch.float64)
    given_rates = NodeRates({"up": keys}, {"up": rates})
    options = {"density": 0.3, "combine": "weighted_sum", "trimming": trimming}
    merged = ties(base, sources, rates=given_rates, **options)
    rows = [torch.cat([s[keys[0]], s[keys[1]][:, None]], 1) for s in (base, *sources)]
    for node, rate in enumerate(rates.tolist()):
        expected = by_hand(
            *[rows[0][node].tolist(), [row[node].tolist() for row in rows[1:]]],
            [0.5, 0.5],
            count=math.floor(rate * 6 + 0.5),
            divide=False,
        )
        ours = [*merged[keys[0]][node].tolist(), merged[keys[1]][node].item()]
        assert ours == pytest.approx(expected, rel=0, abs=256 * EPS)
    rest = [{k: s[k] for k in ("kernel", "scalar")} for s in (base, *sources)]
    alone = ties(rest[0], rest[1:], **options)
    assert all(torch.equal(merged[key], alone[key]) for key in alone)


@pytest.mark.parametrize(
    ("layers", "rates", "complaint"),
    [
        ({"up": ("down",)}, torch.ones(7), "the base has no 'down'"),
        ({"up": ("up.weight",)}, torch.ones(5), r"shape \(7, 5\), and .* of 5 nodes"),
    ],
)
def test_rates_that_do_not_fit(layers, rates, complaint):
    base, sources = random_models(0, q=2)
    with pytest.raises(ValueError, match=complaint):
        ties(base, sources, rates=NodeRates(layers, {"up": rates}))


def test_another_way_to_trim():
    base, sources = random_models(0, q=2)
    with pytest.raises(ValueError, match="trimming must be 'tensor' or 'model'"):
        ties(base, sources, trimming="layer")

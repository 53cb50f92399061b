import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import SHAPES, random_models, random_weights
from torch.testing import assert_close

from mloss.merging.methods.pcb_merging import pcb_merging
from mloss.merging.pruning.node_rates import NodeRates

EPS = torch.finfo(torch.float64).eps
# Balances differ by 1e-5 of their range at least, so that some hundred roundings of
# shares make steps below 8 differ by this.
ROUNDING = 8 * 128 * EPS / 1e-5
seeds = st.integers(0, 2**31)
densities = st.floats(0, 1)
LARGE = {"w": (40, 50), "b": (300,)}


def flat(state):
    keys = [key for key in state if key != "steps"]
    return torch.cat([state[key].reshape(-1).double() for key in keys])


def by_hand(base, sources, weights, *, density, clipped_with=None):
    """PCB-Merging of lists of numbers, each step written out.

    Sizes are clipped as those of other task vectors, if any are given.
    """
    q, size = len(sources), len(base)
    vectors = [[s - b for s, b in zip(source, base, strict=True)] for source in sources]
    total = [
        q * sum(w * vector[i] for w, vector in zip(weights, vectors, strict=True))
        for i in range(size)
    ]
    clipped, shares = [], []
    for vector, with_it in zip(vectors, clipped_with or vectors, strict=True):
        ascending = sorted(map(abs, with_it))
        least = ascending[int(len(ascending) * 0.0001)]
        greatest = ascending[max(int(len(ascending) * (1 - 0.0001) - 1), 0)]
        sizes = [min(max(abs(t), least), greatest) for t in vector]
        wide = greatest > least
        ns = [(s - least) / (greatest - least) if wide else 0.0 for s in sizes]
        balances = [
            math.exp(q * n**2) * math.tanh(t * whole)
            for n, t, whole in zip(ns, vector, total, strict=True)
        ]
        pairs = zip(sizes, vector, strict=True)
        clipped.append([math.copysign(s, t) if t else 0.0 for s, t in pairs])
        shares.append(kept_shares(balances, density=density))
    merged = []
    for i in range(size):
        mass = sum(w * share[i] for w, share in zip(weights, shares, strict=True))
        each = zip(weights, shares, clipped, strict=True)
        step = sum(w * share[i] * t[i] for w, share, t in each)
        merged.append(base[i] + (step / mass if mass else 0.0))
    return merged


def kept_shares(balances, *, density):
    dropped = int(len(balances) * (1 - density))
    if dropped == len(balances):
        return [0.0] * len(balances)
    lowest, highest = sorted(balances)[dropped], max(balances)
    if lowest == highest:
        return [0.0] * len(balances)
    return [max(b - lowest, 0) / (highest - lowest) for b in balances]


@given(seed=seeds, q=st.integers(1, 4), density=densities)
def test_one_competition_for_the_model_entry_by_entry(seed, q, density):
    base, sources = random_models(seed, q=q)
    weights = random_weights(seed, q=q)
    merged = pcb_merging(base, sources, weights=weights, density=density)
    lists = [flat(state).tolist() for state in (base, *sources)]
    expected = by_hand(lists[0], lists[1:], weights, density=density)
    expected = torch.tensor(expected, dtype=torch.float64)
    assert_close(flat(merged), expected, rtol=0, atol=ROUNDING)


@settings(max_examples=20)  # as many competitions as tensors in each
@given(seed=seeds, density=densities)
def test_one_competition_for_each_tensor(seed, density):
    base, sources = random_models(seed, q=3)
    merged = pcb_merging(base, sources, density=density, trimming="tensor")
    for key in SHAPES:
        alone = pcb_merging(
            {key: base[key]}, [{key: s[key]} for s in sources], density=density
        )
        assert torch.equal(merged[key], alone[key])


def pcb_of_the_authors(vectors, *, ratio):
    """Their function on flat task vectors [q, entry], in their order of operations."""
    size = vectors.shape[1]

    def clamp(values, low, high):
        ascending = values.sort(1).values
        least = ascending[:, int(size * low)]
        greatest = ascending[:, int(size * (1 - high) - 1)]
        return values.clamp(least[:, None], greatest[:, None])

    def normalize(values):
        least, greatest = values.aminmax(dim=1, keepdim=True)
        return (values - least) / (greatest - least)

    sizes = clamp(vectors.abs(), 0.0001, 0.0001)
    intra = torch.exp(len(vectors) * normalize(sizes) ** 2)
    balances = intra * torch.tanh(vectors * vectors.sum(0))
    shares = normalize(clamp(balances, 1 - ratio, 0))
    total = (vectors.sign() * sizes * shares).sum(0)
    return total / shares.sum(0).clamp(min=1e-12)


@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.5])
@pytest.mark.parametrize("length", [0.01, 1])
def test_as_the_authors_compute_it(ratio, length):
    base, sources = random_models(0, q=4, shapes=LARGE)
    zero = {key: torch.zeros_like(value) for key, value in base.items()}
    zero["steps"] = base["steps"]
    near = [
        {key: length * (s[key] - base[key]) for key in LARGE} | {"steps": s["steps"]}
        for s in sources
    ]
    merged = pcb_merging(zero, near, density=ratio, scale=1.2)
    vectors = torch.stack([flat(state) for state in near])
    expected = 1.2 * pcb_of_the_authors(vectors, ratio=ratio)
    # Of 2300 entries some balances are nearer to each other.
    assert_close(flat(merged), expected, rtol=0, atol=length * 100 * ROUNDING)
    assert 0.5 * ratio < (flat(merged) != 0).double().mean() < 4 * ratio


@given(seed=seeds)
def test_one_source_keeps_its_largest_entries_whole(seed):
    base, sources = random_models(seed, q=1, shapes=LARGE)
    merged = pcb_merging(base, sources, density=0.25)
    step, whole = flat(merged) - flat(base), flat(sources[0]) - flat(base)
    kept = step != 0
    # All but the last of a quarter of 2300, and the largest clipped to the second.
    assert kept.sum() == 574
    assert whole[kept].abs().min() > whole[~kept].abs().max()
    assert (step[kept] - whole[kept]).abs().sort().values[-2] < 64 * EPS


@settings(max_examples=30)
@given(seed=seeds, order=st.permutations(range(4)))
def test_the_sources_have_no_order(seed, order):
    base, sources = random_models(seed, q=4)
    weights = random_weights(seed, q=4)
    permuted = pcb_merging(
        base, [sources[i] for i in order], weights=[weights[i] for i in order]
    )
    merged = pcb_merging(base, sources, weights=weights)
    assert_close(flat(permuted), flat(merged), rtol=0, atol=ROUNDING)


def test_nothing_kept_is_the_base_and_a_source_of_weight_zero_does_not_count():
    base, sources = random_models(0, q=3)
    assert torch.equal(flat(pcb_merging(base, sources, density=0)), flat(base))
    assert torch.equal(flat(pcb_merging(base, [base, base])), flat(base))
    left_out = pcb_merging(base, sources, weights=[0.5, 0.5, 0])
    assert torch.equal(flat(left_out), flat(pcb_merging(base, sources[:2])))


def test_nodes_with_rates_compete_by_row_and_bias():
    base, sources = random_models(0, q=2)
    keys = ("up.weight", "up.bias")
    rates = torch.linspace(0, 1, 7, dtype=torch.float64)
    merged = pcb_merging(base, sources, rates=NodeRates({"up": keys}, {"up": rates}))
    start, *rows, ours = [
        torch.cat([state[keys[0]], state[keys[1]][:, None]], 1)
        for state in (base, *sources, merged)
    ]
    vectors = [(row - start).flatten().tolist() for row in rows]
    for node, rate in enumerate(rates.tolist()):
        expected = by_hand(
            start[node].tolist(),
            [row[node].tolist() for row in rows],
            [0.5, 0.5],
            density=rate,
            clipped_with=vectors,
        )
        expected = torch.tensor(expected, dtype=torch.float64)
        assert_close(ours[node], expected, rtol=0, atol=ROUNDING)
    rest = [{k: s[k] for k in ("kernel", "scalar")} for s in (base, *sources)]
    alone = pcb_merging(rest[0], rest[1:])
    assert all(torch.equal(merged[key], alone[key]) for key in alone)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"density": 1.1}, "density must be a fraction"),
        ({"trimming": "layer"}, "trimming must be 'tensor' or 'model'"),
        ({"scale": math.nan}, "scale must be finite"),
    ],
)
def test_a_bad_call_is_named(options, complaint):
    base, sources = random_models(0, q=2)
    with pytest.raises(ValueError, match=complaint):
        pcb_merging(base, sources, **options)

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_models import SHAPES, random_models, random_weights
from torch.testing import assert_close

from mloss.merging import task_arithmetic
from mloss.merging.methods.consensus import consensus

EPS = torch.finfo(torch.float64).eps
# A few roundings of sums of a few numbers below 16.
ROUNDING = 16 * 16 * EPS
seeds = st.integers(0, 2**31)


def same(first, second):
    for key in SHAPES:
        assert_close(first[key], second[key], rtol=0, atol=ROUNDING)


def by_hand(base, sources, weights, *, mask_scale, threshold, scale):
    merged = []
    for start, *values in zip(base, *sources, strict=True):
        steps = [value - start for value in values]
        mean = sum(w * t for w, t in zip(weights, steps, strict=True))
        total = len(steps) * mean
        users = sum(abs(t) > mask_scale * abs(total - t) for t in steps)
        merged.append(start + scale * mean if users >= threshold else start)
    return merged


@given(
    seed=seeds,
    q=st.integers(1, 5),
    mask_scale=st.floats(0, 2),
    threshold=st.integers(0, 6),
)
def test_entry_by_entry(seed, q, mask_scale, threshold):
    base, sources = random_models(seed, q=q)
    weights = random_weights(seed, q=q)
    options = {"mask_scale": mask_scale, "threshold": threshold, "scale": 0.7}
    merged = consensus(base, sources, weights=weights, **options)
    for key in SHAPES:
        entries = [state[key].flatten().tolist() for state in (base, *sources)]
        expected = by_hand(entries[0], entries[1:], weights, **options)
        expected = torch.tensor(expected, dtype=torch.float64)
        assert_close(merged[key].flatten(), expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("seed", range(3))
def test_as_the_authors_compute_it(seed):
    base, sources = random_models(seed, q=4)
    merged = consensus(base, sources, mask_scale=0.5, threshold=2, scale=4 * 0.3)
    for key in SHAPES:
        start = base[key]
        tuned = torch.stack([source[key] for source in sources])
        total = (tuned - start).sum(0)
        masks = (start - tuned).abs() > (start + total - tuned).abs() * 0.5
        expected = start + 0.3 * total * (masks.float().sum(0) >= 2)
        assert_close(merged[key], expected, rtol=0, atol=ROUNDING)


@given(seed=seeds)
def test_with_no_threshold_it_is_task_arithmetic(seed):
    base, sources = random_models(seed, q=3)
    options = {"weights": random_weights(seed, q=3), "scale": 1.3}
    merged = consensus(base, sources, threshold=0, **options)
    plain = task_arithmetic(base, sources, **options)
    assert all(torch.equal(merged[key], plain[key]) for key in plain)


@given(seed=seeds)
def test_one_source_needs_a_threshold_of_one(seed):
    base, sources = random_models(seed, q=1)
    same(consensus(base, sources, threshold=1), sources[0])
    same(consensus(base, sources), base)


@given(seed=seeds, order=st.permutations(range(4)))
def test_the_sources_have_no_order(seed, order):
    base, sources = random_models(seed, q=4)
    weights = random_weights(seed, q=4)
    permuted = consensus(
        base, [sources[i] for i in order], weights=[weights[i] for i in order]
    )
    same(permuted, consensus(base, sources, weights=weights))


@given(seed=seeds, power=st.integers(-3, 3))
def test_longer_task_vectors_move_as_much_further(seed, power):
    base, sources = random_models(seed, q=3)
    base = {key: torch.zeros_like(value) for key, value in base.items()}
    longer = [{key: 2**power * value for key, value in s.items()} for s in sources]
    for state in (*sources, *longer):
        state["steps"] = base["steps"]
    merged, further = consensus(base, sources), consensus(base, longer)
    assert all(torch.equal(2**power * merged[key], further[key]) for key in SHAPES)


def test_a_source_of_weight_zero_has_no_vote():
    base, sources = random_models(0, q=3)
    same(consensus(base, sources, weights=[0.5, 0.5, 0]), consensus(base, sources[:2]))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"mask_scale": -0.1}, "mask_scale must be finite and >= 0, got -0.1"),
        ({"mask_scale": math.nan}, "mask_scale must be finite"),
        ({"threshold": -1}, "threshold counts sources and must be >= 0, got -1"),
        ({"scale": math.inf}, "scale must be finite"),
    ],
)
def test_a_bad_call_is_named(options, complaint):
    base, sources = random_models(0, q=2)
    with pytest.raises(ValueError, match=complaint):
        consensus(base, sources, **options)

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_models import random_models, random_weights
from torch.testing import assert_close

from mloss.merging.methods.model_stock import agreement, model_stock

EPS = torch.finfo(torch.float64).eps
seeds = st.integers(0, 2**31)


def related_models(seed, *, q):
    """Sources whose steps share a direction, so that their cosines are positive."""
    base, (common, *own) = random_models(seed, q=q + 1)
    sources = [
        {k: base[k] + (common[k] - base[k]) + (each[k] - base[k]) for k in base}
        for each in own
    ]
    return base, sources


def t_by_pairs(vectors, weights):
    """The ratio from the cosine of each pair, with lists of numbers."""
    cosines, counts = [], []
    for (i, a), (j, b) in itertools.combinations(enumerate(vectors), 2):
        dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
        cosines.append(dot / math.hypot(*a) / math.hypot(*b))
        counts.append(weights[i] * weights[j])
    cosine = math.fsum(c * w for c, w in zip(cosines, counts, strict=True))
    cosine /= math.fsum(counts)
    n = 1 / math.fsum(w**2 for w in weights)
    return max(0.0, n * cosine / (1 + (n - 1) * cosine)) if cosine > 0 else 0.0


def expected_entry(base, sources, weights, key, *, keys=None, row=None):
    """base + t * mean for one entry (or one row), the angle from all of `keys`."""
    at = ... if row is None else row
    vectors = [
        torch.cat([(s[k] - base[k])[at].flatten() for k in keys or [key]]).tolist()
        for s in sources
    ]
    mean = sum(
        w * (s[key] - base[key])[at] for w, s in zip(weights, sources, strict=True)
    )
    return base[key][at] + t_by_pairs(vectors, weights) * mean


# The cosine is off by some 100 roundings and t by at most n times that; steps are
# below 10.
TOLERANCE = 10 * 5 * 100 * EPS


@given(seed=seeds, q=st.integers(2, 5))
def test_a_tensor_by_its_pairs(seed, q):
    base, sources = related_models(seed, q=q)
    weights = random_weights(seed, q=q)
    merged = model_stock(base, sources, weights=weights)
    for key in ("up.weight", "up.bias", "kernel"):
        expected = expected_entry(base, sources, weights, key)
        assert_close(merged[key], expected, rtol=0, atol=TOLERANCE)


@given(seed=seeds)
def test_one_angle_for_a_layer(seed):
    base, sources = related_models(seed, q=3)
    weights = random_weights(seed, q=3)
    merged = model_stock(base, sources, weights=weights, per="layer")
    layers = {"up.weight": ["up.weight", "up.bias"], "kernel": ["kernel", "scalar"]}
    for key, keys in layers.items():
        expected = expected_entry(base, sources, weights, key, keys=keys)
        assert_close(merged[key], expected, rtol=0, atol=TOLERANCE)


@given(seed=seeds)
def test_one_angle_for_each_row(seed):
    base, sources = related_models(seed, q=3)
    weights = random_weights(seed, q=3)
    merged = model_stock(base, sources, weights=weights, per="row")
    for key, rows in {"up.weight": 7, "kernel": 2}.items():
        for row in range(rows):
            expected = expected_entry(base, sources, weights, key, row=row)
            assert_close(merged[key][row], expected, rtol=0, atol=TOLERANCE)
    whole = model_stock(base, sources, weights=weights)
    assert torch.equal(merged["up.bias"], whole["up.bias"])


def test_two_steps_at_sixty_degrees():
    base = {"w": torch.zeros(2).double()}
    ends = [[1.0, 0.0], [0.5, math.sqrt(0.75)]]
    steps = torch.tensor(ends, dtype=torch.float64)
    sources = [{"w": step} for step in steps]
    # t = 2 c / (1 + c) = 2/3 at c = 1/2.
    expected = steps.mean(0) * 2 / 3
    assert_close(model_stock(base, sources)["w"], expected, rtol=4 * EPS, atol=4 * EPS)


@given(seed=seeds, q=st.integers(2, 5))
def test_sources_that_agree_are_returned(seed, q):
    base, (source,) = random_models(seed, q=1)
    merged = model_stock(base, [source] * q)
    for key in base:
        # t is off by some 100 roundings, of steps below 10.
        assert_close(merged[key], source[key], rtol=0, atol=1e3 * EPS)


def test_sources_that_share_no_direction_give_the_base():
    base = {"w": torch.ones(2).double(), "v": torch.ones(2).double()}
    first = {"w": torch.tensor([2.0, 1.0]), "v": torch.tensor([2.0, 1.0])}
    second = {"w": torch.tensor([1.0, 2.0]), "v": torch.tensor([0.0, 1.1])}
    sources = [{k: v.double() for k, v in each.items()} for each in (first, second)]
    merged = model_stock(base, sources)
    assert torch.equal(merged["w"], base["w"])
    assert torch.equal(merged["v"], base["v"])


def test_a_source_at_the_base_has_cosine_zero():
    vectors = torch.tensor([[[3.0, 4.0]], [[3.0, 4.0]], [[0.0, 0.0]]]).double()
    weights = torch.full((3,), 1 / 3).double()
    # Mean cosine 1/3: t = 1 / (1 + 2/3).
    assert_close(agreement(vectors, weights), torch.tensor([0.6]).double())


@given(seed=seeds)
def test_t_is_the_foot_on_the_line_to_the_mean(seed):
    # Steps of one length with one cosine to each other, c: a common part and parts of
    # their own at right angles. The point on the line from 0 to their weighted mean
    # that is nearest to the common part, by projection.
    q, c = 3, 0.4
    weights = torch.tensor(random_weights(seed, q=q), dtype=torch.float64)
    axes = torch.eye(q + 1).double()
    common = math.sqrt(c) * axes[0]
    steps = common + math.sqrt(1 - c) * axes[1:]
    mean = weights @ steps
    foot = (common @ mean) / (mean @ mean)
    assert_close(agreement(steps[:, None], weights)[0], foot, rtol=50 * EPS, atol=0)


@pytest.mark.parametrize("weights", [None, [1.0, 0.0, 0.0]])
def test_one_source_has_no_angle(weights):
    base, sources = random_models(0, q=3 if weights else 1)
    with pytest.raises(ValueError, match=r"two sources or more .*, got 1"):
        model_stock(base, sources, weights=weights)


def test_a_source_of_weight_zero_does_not_count():
    base, sources = related_models(0, q=3)
    merged = model_stock(base, sources, weights=[0.5, 0, 0.5])
    expected = model_stock(base, [sources[0], sources[2]])
    for key in base:
        assert_close(merged[key], expected[key], rtol=0, atol=TOLERANCE)


def test_empty_tensors_stay_empty():
    base, sources = random_models(0, q=2, shapes={"a": (0,), "b": (0, 3), "c": (3, 0)})
    for per in ("tensor", "layer", "row"):
        merged = model_stock(base, sources, per=per)
        assert all(torch.equal(merged[key], base[key]) for key in base)


def test_another_grouping():
    base, sources = random_models(0, q=2)
    with pytest.raises(ValueError, match="per must be 'tensor', 'layer' or 'row'"):
        model_stock(base, sources, per="model")

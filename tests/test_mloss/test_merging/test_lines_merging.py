import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_models import random_models, random_weights
from torch.testing import assert_close

from mloss.merging import average, task_arithmetic, ties
from mloss.merging.methods.lines import lines

EPS = torch.finfo(torch.float64).eps
# A few roundings of sums of a few numbers below 16.
ROUNDING = 16 * 16 * EPS
DEPTHS = {
    "embedding": 0,
    "blocks.0.w": 0,
    "blocks.1.w": 1 / 3,
    "blocks.2.w": 2 / 3,
    "blocks.3.w": 1,
    "head": 0,
}
SHAPES = dict.fromkeys(DEPTHS, (4, 3))
seeds = st.integers(0, 2**31)
coefficients = st.floats(-2, 2)


def deep_models(seed, *, q, dtype=torch.float64):
    return random_models(seed, q=q, shapes=SHAPES, dtype=dtype)


def scaled_by_hand(base, merged, *, alpha, beta):
    return {
        key: base[key] + (alpha + beta * depth) * (merged[key] - base[key])
        for key, depth in DEPTHS.items()
    }


def same(first, second, *, rounding=ROUNDING):
    for key in DEPTHS:
        assert_close(first[key], second[key], rtol=0, atol=rounding)


@given(seed=seeds, alpha=coefficients, beta=coefficients)
def test_each_block_moves_by_its_depth(seed, alpha, beta):
    base, sources = deep_models(seed, q=3)
    weights = random_weights(seed, q=3)
    merged = lines(base, sources, weights=weights, alpha=alpha, beta=beta)
    plain = task_arithmetic(base, sources, weights=weights)
    same(merged, scaled_by_hand(base, plain, alpha=alpha, beta=beta))


@pytest.mark.parametrize("seed", range(3))
def test_as_the_authors_scale_the_sum_of_task_vectors(seed):
    base, sources = deep_models(seed, q=4)
    merged = lines(base, sources, beta=4 * 0.3)
    for block in range(4):
        key = f"blocks.{block}.w"
        total = sum(source[key] - base[key] for source in sources)
        expected = base[key] + (1 / 4 + 0.3 * block / 3) * total
        assert_close(merged[key], expected, rtol=0, atol=ROUNDING)


@given(seed=seeds)
def test_without_a_slope_it_is_the_average(seed):
    base, sources = deep_models(seed, q=3)
    same(lines(base, sources, beta=0), average(base, sources))


@given(seed=seeds, scale=st.floats(0.5, 2))
def test_the_authors_alpha_undoes_the_length_of_the_step(seed, scale):
    base, sources = deep_models(seed, q=3)
    merged = lines(base, sources, beta=0, of_options={"scale": scale})
    # A ratio of sums of 72 sizes, which multiplies steps below 16.
    same(merged, average(base, sources), rounding=72 * 16 * EPS)


def test_the_step_of_another_method():
    base, sources = deep_models(0, q=3)
    options = {"density": 0.5}
    merged = lines(base, sources, alpha=0.5, of="ties", of_options=options)
    same(
        merged,
        scaled_by_hand(base, ties(base, sources, **options), alpha=0.5, beta=1),
    )


def test_a_method_that_does_not_move():
    base, sources = deep_models(0, q=3)
    same(lines(base, sources, of="ties", of_options={"density": 0}), base)


def test_one_source_is_returned_where_nothing_is_scaled():
    base, sources = deep_models(0, q=1)
    same(lines(base, sources, beta=0), sources[0])


def test_the_step_is_rounded_once():
    base, sources = deep_models(0, q=3, dtype=torch.bfloat16)
    merged = lines(base, sources, beta=0.5)
    exact = [
        {key: value.double() for key, value in s.items()} for s in (base, *sources)
    ]
    expected = lines(exact[0], exact[1:], beta=0.5)
    assert all(
        torch.equal(merged[key], expected[key].to(torch.bfloat16)) for key in DEPTHS
    )


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"beta": math.nan}, "alpha and beta must be finite"),
        ({"alpha": math.inf}, "alpha and beta must be finite"),
        ({"of": "nothing"}, "of='nothing' is not one of"),
        ({"of": "m_ties"}, "of='m_ties' needs data"),
        ({"of": "dare"}, "of='dare' takes random numbers"),
        (
            {"of": "ties", "of_options": {"densitty": 1}},
            "holds 'densitty', which is no option of 'ties': density, ",
        ),
        ({"of_options": {"weights": [1.0, 0.0]}}, "holds 'weights', which is no"),
        ({"of": "average", "of_options": {"scale": 1}}, "'average': it has none"),
    ],
)
def test_a_bad_call_is_named(options, complaint):
    base, sources = deep_models(0, q=2)
    with pytest.raises(ValueError, match=complaint):
        lines(base, sources, **options)

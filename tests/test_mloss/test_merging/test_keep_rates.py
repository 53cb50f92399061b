import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from mloss.merging.pruning.keep_rates import average_ranks, keep_rates

EPS = np.finfo(np.float64).eps
# Few distinct values, so that ties are common.
score_lists = st.lists(st.integers(0, 5), min_size=1, max_size=30)


@st.composite
def budgets(draw):
    density = draw(st.floats(0, 1))
    return {"density": density, "spread": density * draw(st.floats(0, 1))}


@given(scores=score_lists)
def test_tied_scores_share_their_mean_rank(scores):
    ours = average_ranks(torch.tensor(scores, dtype=torch.float64))
    assert ours.tolist() == (rankdata(scores) - 1).tolist()


@given(scores=score_lists, budget=budgets())
def test_rates_are_spaced_by_rank_within_the_budget(scores, budget):
    # Three roundings of numbers no larger than 1.
    rates = keep_rates(torch.tensor(scores, dtype=torch.float64), **budget).numpy()
    last = max(len(scores) - 1, 1)
    expected = budget["density"] - budget["spread"] * (rankdata(scores) - 1) / last
    np.testing.assert_allclose(rates, expected, rtol=0, atol=4 * EPS)
    assert (rates <= budget["density"]).all()
    assert (rates >= 0).all()


@given(scores=st.lists(st.integers(0, 5), min_size=2, max_size=30), budget=budgets())
def test_the_mean_rate_does_not_depend_on_the_scores(scores, budget):
    rates = keep_rates(torch.tensor(scores, dtype=torch.float64), **budget)
    # n sums of numbers no larger than 1.
    expected = budget["density"] - budget["spread"] / 2
    assert rates.mean().item() == pytest.approx(expected, abs=40 * EPS, rel=0)


def test_the_lowest_score_keeps_most():
    rates = keep_rates(torch.tensor([3.0, 1.0, 2.0]), density=0.5, spread=0.25)
    assert rates.tolist() == [0.25, 0.5, 0.375]


def test_a_single_node_keeps_the_density():
    assert keep_rates(torch.tensor([7.0]), density=0.2, spread=0.1).tolist() == [0.2]


@pytest.mark.parametrize(
    ("budget", "complaint"),
    [
        ({"density": 1.2, "spread": 0.1}, "density"),
        ({"density": math.nan, "spread": 0.1}, "density"),
        ({"density": 0.2, "spread": 0.3}, "spread"),
        ({"density": 0.2, "spread": -0.1}, "spread"),
        ({"density": 0.2, "spread": math.nan}, "spread"),
    ],
)
def test_a_budget_outside_its_range_is_named(budget, complaint):
    with pytest.raises(ValueError, match=f"^{complaint} must be"):
        keep_rates(torch.ones(3), **budget)


def test_scores_must_be_finite():
    with pytest.raises(ValueError, match="scores must be finite"):
        keep_rates(torch.tensor([1.0, math.nan]), density=0.2, spread=0.1)

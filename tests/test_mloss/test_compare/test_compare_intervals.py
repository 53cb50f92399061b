import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from mloss.compare.intervals import mean_of_strata, wilson
from mloss.compare.separation import leads

EPS = torch.finfo(torch.float64).eps


def zeros_and_ones(ones, n):
    return torch.tensor([1.0] * ones + [0.0] * (n - ones), dtype=torch.float64)


@given(n=st.integers(1, 400), data=st.data())
def test_wilson_is_that_of_scipy(n, data):
    ones = data.draw(st.integers(0, n))
    found = wilson(zeros_and_ones(ones, n))
    expected = binomtest(ones, n).proportion_ci(0.95, method="wilson")
    # About ten roundings of numbers up to 1 + z^2/n <= 5 in each.
    bound = 50 * EPS
    assert found.value == pytest.approx(ones / n, abs=bound)
    assert found.low == pytest.approx(min(expected.low, ones / n), abs=bound)
    assert found.high == pytest.approx(max(expected.high, ones / n), abs=bound)


def test_one_stratum_has_wilsons_interval_and_tasks_count_equally():
    one = zeros_and_ones(7, 9)
    alone, whole = wilson(one), mean_of_strata([one])
    # Taking the mean off and adding it again rounds twice.
    assert whole.low == pytest.approx(alone.low, abs=4 * EPS)
    assert whole.high == pytest.approx(alone.high, abs=4 * EPS)
    both = mean_of_strata([zeros_and_ones(1, 1), zeros_and_ones(0, 100)])
    assert both.value == 0.5


def test_the_interval_of_a_mean_over_tasks_holds_the_truth_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    truth, runs = torch.tensor([0.9, 0.6, 0.97]), 4000
    answers = torch.rand(runs, 3, 24, generator=generator) < truth[:, None]
    found = [mean_of_strata(list(one.double())) for one in answers]
    held = sum(one.low <= truth.mean() <= one.high for one in found) / runs
    # The binomial is discrete: 95 % holds up to what one sample more or less makes of
    # it. Five standard errors of the share are 1.7 %; within 2.5 % of nominal besides.
    assert held > 0.925 - 0.017
    assert held < 1


def rank(*rates_of_merges):
    return [(f"merge {i}", strata) for i, strata in enumerate(rates_of_merges)]


def test_a_lead_is_known_by_its_place_and_not_by_its_name():
    answers = [[zeros_and_ones(ones, 40)] for ones in (30, 20, 10)]
    found = leads([("one", strata) for strata in answers])
    assert [lead.difference for lead in found] == [0.25, 0.5]


def test_equal_merges_are_not_told_apart_and_no_number_of_samples_is_promised():
    answers = zeros_and_ones(20, 30)
    (lead,) = leads(rank([answers], [answers.flip(0)]))
    assert (lead.over, lead.difference, lead.separated) == ("merge 1", 0, False)
    assert lead.more is None


def test_rounding_is_no_lead():
    # A mean of thirds in two orders: the sums round differently.
    thirds = torch.tensor([1 / 3, 2 / 3, 1.0, 0.1, 0.7], dtype=torch.float64).repeat(7)
    (lead,) = leads(rank([thirds + 1e-16, thirds], [thirds, thirds.flip(0)]))
    assert lead.difference == 0
    assert lead.more is None


@pytest.mark.parametrize("n", [40, 128])
def test_the_error_of_a_difference_is_agresti_and_mins(n):
    # 9 samples that only the leader gets, 2 that only the other gets.
    leader, other = torch.zeros(n).double(), torch.zeros(n).double()
    leader[:9], other[9:11] = 1, 1
    (lead,) = leads(rank([leader], [other]))
    assert lead.difference == pytest.approx(7 / n)
    theirs = math.sqrt(12 - 49 / (n + 2)) / (n + 2)
    # They also add two samples that tell nothing: a factor 1 + 2/n and no more.
    assert theirs <= lead.stderr <= theirs * (1 + 2 / n)


def test_as_many_samples_as_are_said_to_be_needed_separate():
    pattern = [1.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1.0, 1.0]
    leader = torch.tensor(pattern).clamp(min=0).double()
    other = -torch.tensor(pattern).clamp(max=0).double()
    (lead,) = leads(rank([leader], [other]))
    assert not lead.separated
    times = math.ceil(lead.more / len(pattern)) + 1
    (later,) = leads(rank([leader.repeat(times)], [other.repeat(times)]))
    assert later.separated
    # Half as many more are too few, of the same kind.
    (sooner,) = leads(rank([leader.repeat(times // 2)], [other.repeat(times // 2)]))
    assert not sooner.separated


def test_the_error_rate_is_shared_between_rivals():
    leader, other = zeros_and_ones(30, 40), zeros_and_ones(23, 40)
    (alone,) = leads(rank([leader], [other]))
    among = leads(rank([leader], *[[other]] * 20))
    assert alone.separated
    assert not any(lead.separated for lead in among)
    size = alone.difference / alone.stderr
    assert norm.isf(0.05) < size < norm.isf(0.05 / 20)


def test_the_best_is_rarely_said_to_be_behind():
    """Of 20 merges that are equally good each is the best; take the first."""
    generator = torch.Generator().manual_seed(1)
    wrong, runs = 0, 1000
    for answers in (torch.rand(runs, 20, 100, generator=generator) < 0.8).double():
        order = answers.mean(dim=1).argsort(descending=True)
        found = leads([(f"{i}", [answers[i]]) for i in order.tolist()])
        wrong += any(lead.separated for lead in found if lead.over == "0")
    # At most 5 %, and five standard errors of that share over the runs.
    assert wrong / runs < 0.05 + 5 * math.sqrt(0.05 * 0.95 / runs)

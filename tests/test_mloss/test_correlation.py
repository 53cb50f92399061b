from itertools import combinations

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from mloss.correlation import rank_correlation, size_ratio

EPS = np.finfo(float).eps


def pairs_of(models):
    return np.array(list(combinations(range(models), 2)))


def model_effects(rng, members, *, shared):
    """Two measurements of each pair: correlated sums over its models, and noise."""
    first, other = rng.normal(size=(2, members.max() + 1))
    second = shared * first + np.sqrt(1 - shared**2) * other
    noise = 0.5 * rng.normal(size=(2, len(members)))
    return first[members].sum(1) + noise[0], second[members].sum(1) + noise[1]


def naive_interval(x, y, *, rng, draws):
    """Resample pairs as if they were independent."""
    values = []
    for _ in range(draws):
        rows = rng.integers(len(x), size=len(x))
        ranks = rankdata(x[rows]), rankdata(y[rows])
        values.append(np.corrcoef(*ranks)[0, 1])
    return np.quantile(values, [0.025, 0.975])


def test_any_increasing_relation_is_a_correlation_of_one():
    members, rng = pairs_of(6), np.random.default_rng(0)
    x = rng.normal(size=len(members))
    for y, expected in ((np.exp(x), 1), (-(x**3), -1)):
        found = rank_correlation(x, y, members=members, rng=rng, draws=200)
        # A mean over 15 or more products of ranks.
        for value in (found.value, found.low, found.high):
            assert value == pytest.approx(expected, abs=64 * EPS, rel=0)


def test_value_is_spearmans_with_ties():
    members, rng = pairs_of(9), np.random.default_rng(0)
    x, y = rng.integers(0, 5, size=(2, len(members)))
    found = rank_correlation(x, y, members=members, rng=rng, draws=1)
    assert found.value == pytest.approx(spearmanr(x, y).statistic, abs=64 * EPS, rel=0)


@pytest.mark.parametrize("seed", range(5))
def test_a_draw_pairs_the_models_drawn(seed):
    members = pairs_of(6)
    x, y = np.random.default_rng(100).normal(size=(2, len(members)))
    row = {frozenset(pair): r for r, pair in enumerate(members.tolist())}
    drawn = np.random.default_rng(seed).integers(6, size=6)
    rows = [row[frozenset((i, j))] for i, j in combinations(drawn, 2) if i != j]
    expected = spearmanr(x[rows], y[rows]).statistic
    rng = np.random.default_rng(seed)
    found = rank_correlation(x, y, members=members, rng=rng, draws=1)
    assert found.low == found.high == pytest.approx(expected, abs=64 * EPS, rel=0)


def test_names_of_the_models_do_not_matter():
    members = pairs_of(5)
    x, y = np.random.default_rng(0).normal(size=(2, len(members)))
    plain = rank_correlation(x, y, members=members, rng=np.random.default_rng(1))
    named = rank_correlation(
        x, y, members=10 * members + 3, rng=np.random.default_rng(1)
    )
    assert plain == named


def test_the_interval_covers_where_resampling_pairs_does_not():
    members, rng = pairs_of(24), np.random.default_rng(1)
    shared, trials, draws = 0.6, 100, 100
    # The sums are Gaussian: two model effects and noise of variance 1/4 each.
    truth = 6 / np.pi * np.arcsin(2 * shared / 2.25 / 2)
    covered, naive_covered, wider = 0, 0, 0
    for _ in range(trials):
        x, y = model_effects(rng, members, shared=shared)
        ours = rank_correlation(x, y, members=members, rng=rng, draws=draws)
        low, high = naive_interval(x, y, rng=rng, draws=draws)
        covered += ours.low <= truth <= ours.high
        naive_covered += low <= truth <= high
        wider += ours.high - ours.low > high - low
    # 95 of 100 expected, less five standard deviations of a binomial.
    assert covered >= 95 - 5 * np.sqrt(100 * 0.95 * 0.05)
    assert naive_covered < 95 - 5 * np.sqrt(100 * 0.95 * 0.05)
    assert wider == trials


def test_a_constant_factor_is_the_size_ratio():
    members, rng = pairs_of(7), np.random.default_rng(0)
    measured = np.exp(rng.normal(size=len(members)))
    found = size_ratio(3 * measured, measured, members=members, rng=rng, draws=100)
    for value in (found.value, found.low, found.high):
        assert value == pytest.approx(3, rel=64 * EPS)


def test_size_ratio_is_a_geometric_mean():
    found = size_ratio(
        [1.0, 8.0, 1.0],
        [1.0, 1.0, 1.0],
        members=[[0, 1], [0, 2], [1, 2]],
        rng=np.random.default_rng(0),
        draws=400,
    )
    assert found.value == pytest.approx(2, rel=8 * EPS)
    # Whole draws can consist of one pair, at most a ratio of 8 and at least of 1.
    assert found.low == pytest.approx(1, rel=8 * EPS)
    assert found.high == pytest.approx(8, rel=8 * EPS)


def test_rows_of_more_models_than_two():
    members, rng = np.array(list(combinations(range(6), 3))), np.random.default_rng(0)
    x = rng.normal(size=len(members))
    found = rank_correlation(x, x, members=members, rng=rng, draws=50)
    assert found.low == pytest.approx(1, abs=64 * EPS, rel=0)


@pytest.mark.parametrize("function", [rank_correlation, size_ratio])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"predicted": [1.0, 2.0]}, r"one length, got \(2,\) and \(3,\)"),
        ({"measured": [1.0, np.nan, 2.0]}, "measured must be finite"),
        ({"members": [[0, 1], [1, 1], [0, 2]]}, "names a model twice"),
        ({"members": [0, 1, 2]}, r"shape \[3, q\]"),
        ({"members": [[0.0, 1.0]] * 3}, "integers"),
        ({"draws": 0}, "draws must be >= 1, got 0"),
        ({"level": 1.0}, "level must lie between 0 and 1, got 1.0"),
    ],
)
def test_arguments_that_do_not_fit_are_named(function, changed, message):
    fitting = {
        "predicted": [1.0, 2.0, 3.0],
        "measured": [2.0, 1.0, 3.0],
        "members": [[0, 1], [0, 2], [1, 2]],
        "rng": np.random.default_rng(0),
    }
    given = fitting | changed
    with pytest.raises(ValueError, match=message):
        function(given.pop("predicted"), given.pop("measured"), **given)


def test_what_has_no_order_or_no_ratio_is_refused():
    rest = {"members": [[0, 1], [0, 2]], "rng": np.random.default_rng(0)}
    with pytest.raises(ValueError, match="no order"):
        rank_correlation([1.0, 1.0], [1.0, 2.0], **rest)
    with pytest.raises(ValueError, match=r"predicted must be positive, got 0\.0"):
        size_ratio([0.0, 1.0], [1.0, 2.0], **rest)

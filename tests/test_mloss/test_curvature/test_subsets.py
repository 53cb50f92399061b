from itertools import combinations

import pytest
from quadratic_pool import inputs, models, two_layers

from mloss.curvature import gap_pool, rank_subsets

EPS = 2.0**-52


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pool")
    return gap_pool(two_layers(), models(8), data=inputs(), directory=directory)


def by_predicted_gap(pool, size):
    def predicted(members):
        weights = [1 / size if i in members else 0 for i in range(pool.models)]
        return pool.predicted_gap(weights)

    gaps = {m: predicted(m) for m in combinations(range(pool.models), size)}
    return sorted(gaps.items(), key=lambda item: item[1])


@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_every_subset_in_order(pool, size):
    expected = by_predicted_gap(pool, size)
    found = rank_subsets(pool, size=size, top=len(expected))
    assert (found.tried, found.exhaustive) == (len(expected), True)
    assert [c.members for c in found.candidates] == [m for m, _ in expected]
    for candidate, (_, predicted) in zip(found.candidates, expected, strict=True):
        # Sums of up to 28^2 products, in another order.
        assert candidate.predicted_gap == pytest.approx(predicted, rel=1000 * EPS)
        assert candidate.weights == candidate.ensemble == (1 / size,) * size


def test_the_beam_says_so_and_looks_at_what_it_says(pool):
    found = rank_subsets(pool, size=4, top=3, limit=60)
    assert not found.exhaustive
    # The beam is wider than the pool's 28 pairs and 56 triples: it holds everything.
    assert found.tried == 28 + 56 + 70
    assert [c.members for c in found.candidates] == [
        members for members, _ in by_predicted_gap(pool, 4)[:3]
    ]
    assert rank_subsets(pool, size=2, limit=1).exhaustive


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 1}, "between 2 and 8, got 1"),
        ({"size": 9}, "between 2 and 8, got 9"),
        ({"size": 2, "top": 0}, "must be >= 1, got 0"),
        ({"size": 2, "limit": 0}, "must be >= 1, got 10 and 0"),
    ],
)
def test_refusals(pool, options, message):
    with pytest.raises(ValueError, match=message):
        rank_subsets(pool, **options)

import dataclasses

import pytest
import torch
from torch import nn

from mloss import score
from mloss.agreement import agreements


@pytest.fixture(scope="module")
def scored():
    torch.manual_seed(0)

    def build():
        layers = nn.LayerNorm(8), nn.Linear(8, 4), nn.GELU(), nn.Linear(4, 3), nn.ReLU()
        return nn.Sequential(*layers).double()

    base, *sources = (build() for _ in range(3))
    return score(base, sources, torch.randn(50, 8, dtype=torch.float64))


def with_first_site(scored, **fields):
    first, *others = scored.sites
    changed = dataclasses.replace(first, **fields)
    return dataclasses.replace(scored, sites=(changed, *others))


def found(scored, prediction, layer):
    rows = agreements(scored)
    return next(a for a in rows if (a.prediction, a.layer_name) == (prediction, layer))


def test_every_prediction_there_is_has_its_rows(scored):
    rows = [(a.prediction, a.layer_name, a.nodes) for a in agreements(scored)]
    whole = [("1", 4), ("3", 3), (None, 7)]
    assert rows == [
        *(("paper", *row) for row in whole),
        *(("uniform", *row) for row in whole),
        *(("density", *row) for row in whole),
        ("data-free", "1", 4),
    ]


def test_a_prediction_three_times_too_large_in_perfect_order(scored):
    site = scored.sites[0]
    tripled = with_first_site(scored, prediction=3 * site.node)
    row = found(tripled, "uniform", "1")
    assert row.rank_correlation == pytest.approx(1)
    assert row.ratio == pytest.approx(3)
    assert row.spread == pytest.approx(1)


def test_a_prediction_in_reverse_order(scored):
    reverse = with_first_site(scored, prediction=1 / scored.sites[0].node)
    assert found(reverse, "uniform", "1").rank_correlation == pytest.approx(-1)


def test_factors_of_two_either_way_are_a_spread_of_two(scored):
    node = torch.tensor([1.0, 1.0, 1.0, 1.0])
    predicted = torch.tensor([2.0, 0.5, 2.0, 0.5])
    row = found(
        with_first_site(scored, node=node, prediction=predicted), "uniform", "1"
    )
    assert row.ratio == pytest.approx(1)
    assert row.spread == pytest.approx(2)
    assert row.rank_correlation is None


def test_zeros_are_left_out_of_the_ratio(scored):
    predicted = torch.tensor([1.0, 0.0, 4.0, 0.0])
    node = torch.tensor([0.0, 1.0, 2.0, 0.0])
    some = with_first_site(scored, node=node, prediction=predicted)
    assert found(some, "uniform", "1").ratio == pytest.approx(2)
    none = with_first_site(scored, node=torch.zeros(4), prediction=predicted)
    row = found(none, "uniform", "1")
    assert (row.ratio, row.spread, row.rank_correlation) == (None, None, None)

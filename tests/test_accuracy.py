"""Exact, certified, from the definition and simulated: four routes, one number."""

from dataclasses import replace
from itertools import islice

import pytest

from benchmarks.accuracy import page
from benchmarks.four_routes import RATIOS, measured, points

CLOSED_FORM, QUADRATURE = 1e-12, 1e-10  # what expected_mloss promises


def assert_one_number(row, *, sharp):
    name = row.point.activation
    promised = CLOSED_FORM if name.endswith("relu") else QUADRATURE
    error = row.definition_error / row.definition
    assert row.width <= 1e-12
    assert row.lower <= row.exact * (1 + promised)
    assert row.exact * (1 - promised) <= row.upper
    # The sum over the definition is off by less than its coarser self.
    assert error <= sharp
    assert row.lower <= row.definition * (1 + error)
    assert row.definition * (1 - error) <= row.upper
    # Five standard errors of 15 degrees of freedom: one row in 6,000 by chance.
    assert row.stderr <= 3e-3 * row.exact
    assert abs(row.z) <= 5


@pytest.mark.parametrize("point", [*islice(points(), 20)])
def test_the_routes_agree(point):
    assert_one_number(measured(point, digits=16, order=10), sharp=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("point", [*islice(points(), 20, 240)])
def test_the_routes_agree_at_many_points(point):
    assert_one_number(measured(point, digits=30), sharp=1e-8)


def test_both_extremes_occur_for_each_activation():
    ratios = {(p.activation, p.decade) for p in islice(points(), 10)}
    assert len(ratios) == 10
    assert {decade for _, decade in ratios} == {-1, 8}
    for p in islice(points(), 10):
        assert p.k == pytest.approx(p.sigma * RATIOS[p.decade > 0], rel=1e-15)


def test_the_page_counts_what_is_off():
    right = measured(next(points()), digits=16, order=8)
    wrong = replace(right, exact=right.exact * (1 + 1e-6), simulated=2 * right.exact)
    shown = page([right, wrong])
    (line,) = [line for line in shown.splitlines() if line.startswith("| relu | 2 |")]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[2] == "1.0e-06"
    assert cells[-2:] == ["1", "1"]

"""Claims on printed numbers, recomputed in floating point from the bare files."""

from dataclasses import replace
from decimal import Decimal
from importlib.resources import files

import numpy as np
import pytest

from paper_checks.claims import averages, comparisons, marks, spread
from paper_checks.claims import small_changes as changes
from paper_checks.record import Verdict
from paper_checks.tables import TABLES, Table, printed_table


def bare_numbers(number):
    """Cells [row, dataset] and averages [row], without row Std."""
    text = (files("paper_checks.tables") / f"table-{number}.csv").read_text()
    lines = text.replace("<u>", "").replace("</u>", "").splitlines()[1:]
    labels = 2 if number == 1 else 1
    rows = [line.split(",") for line in lines if not line.startswith("Std")]
    values = np.array([row[labels:] for row in rows], dtype=float)
    return values[:, :-1], values[:, -1]


def with_cell(table, row_name, column, value):
    """The table with one printed value replaced."""

    def changed(row):
        if row.name != row_name:
            return row
        if column == "Avg":
            return replace(row, average=replace(row.average, value=Decimal(value)))
        cell = replace(row.cells[column], value=Decimal(value))
        return replace(row, cells={**row.cells, column: cell})

    return Table(table.number, tuple(map(changed, table.rows)))


@pytest.mark.parametrize("number", TABLES)
def test_averages_are_recomputed(number):
    cells, printed = bare_numbers(number)
    off = np.abs(cells.mean(axis=1) - printed)
    found = averages.averages(number)
    assert found.numbers["rows"] == len(printed)
    assert found.numbers["off"] == pytest.approx(off.max(), abs=1e-9)
    # Half a unit of the average and of every cell but MNIST's, which is exact.
    half = 0.005 if number in (1, 4) else 0.0005
    exact = 0 if number == 4 else 1
    width = cells.shape[1]
    rounding = half * (1 + (width - exact) / width)
    assert found.numbers["wrong"] == (off > rounding + 1e-9).sum()


@pytest.mark.parametrize("number", TABLES)
def test_only_table_3_has_a_wrong_average(number):
    expected = Verdict.CORRECTED if number == 3 else Verdict.CONFIRMED
    assert averages.averages(number).verdict == expected


def test_a_wrong_average_is_found_and_put_right(monkeypatch):
    table = with_cell(printed_table(4), "TIES", "Avg", "57.45")
    monkeypatch.setattr(averages, "printed_table", lambda _: table)
    found = averages.averages(4)
    assert found.verdict == Verdict.CORRECTED
    assert found.truth == "The cells of row TIES average 57.55, not 57.45."


def test_the_quoted_variances_are_population_variances():
    cells, _ = bare_numbers(1)
    assert np.round(cells[[0, 1, 4]].var(axis=1), 2).tolist() == [
        172.22,
        203.27,
        197.61,
    ]
    found = spread.quoted_variances_of_table_1()
    assert found.verdict == Verdict.CONFIRMED
    assert found.numbers == {"population_matches": 3, "sample_matches": 0}


def test_a_variance_that_is_off_is_noticed(monkeypatch):
    table = with_cell(printed_table(1), "ViT-B/32 TIES", "Cars", "58.71")
    monkeypatch.setattr(spread, "printed_table", lambda _: table)
    assert spread.quoted_variances_of_table_1().verdict == Verdict.CORRECTED


def test_the_standard_deviations_are_sample_ones():
    cells, average = bare_numbers(3)
    sample = np.column_stack([cells, average]).std(axis=0, ddof=1)
    printed = printed_table(3).row("Std").with_average().values()
    # Rounding of the result, and of the cells through the standard deviation.
    allowed = 0.0005 * (1 + np.sqrt(3 / 2))
    assert np.abs(sample - [float(cell.value) for cell in printed]).max() <= allowed
    found = spread.standard_deviations()
    assert found.verdict == Verdict.CONFIRMED
    assert found.numbers["sample_matches"] == 9
    assert found.numbers["population_matches"] < 9


def test_fairness_is_not_shown_by_variance_alone():
    cells, _ = bare_numbers(1)
    variances = cells.var(axis=1)
    assert variances[:5].argmin() == 3  # Simple Avg. on ViT-B/32
    assert variances[6:11].argmin() == 4  # DARE on ViT-L/14
    found = spread.variance_shows_fairness()
    assert found.verdict == Verdict.CORRECTED
    assert "+0.64 on ViT-B/32 and +0.05 on ViT-L/14" in found.truth


def test_cells_where_another_method_is_better_are_counted():
    cells, _ = bare_numbers(1)
    lead = np.concatenate([cells[r] - cells[r + 1 : r + 5].max(axis=0) for r in (0, 6)])
    found = comparisons.consistently_best()
    assert found.numbers == {
        "behind": (lead < -1e-9).sum(),
        "tied": (np.abs(lead) < 1e-9).sum(),
        "cells": lead.size,
    }
    assert found.verdict == Verdict.CORRECTED


def test_losing_the_average_refutes_the_lead(monkeypatch):
    table = with_cell(printed_table(1), "ViT-L/14 DARE", "Avg", "85.29")
    monkeypatch.setattr(comparisons, "printed_table", lambda _: table)
    assert comparisons.best_average().verdict == Verdict.REFUTED
    assert comparisons.top_three().verdict == Verdict.CONFIRMED


def test_second_best_cells_are_found_by_rank():
    small = printed_table(1).of("ViT-B/32")
    assert ("ViT-B/32 DARE", "MNIST") in marks.ranked(small, 2)
    assert ("ViT-B/32 TIES", "MNIST") in marks.ranked(small, 1)


def test_a_tie_for_second_deserves_both_marks():
    large = marks.ranked(printed_table(1).of("ViT-L/14"), 2)
    cars = {row for row, column in large if column == "Cars"}
    assert cars == {"ViT-L/14 M-TIES", "ViT-L/14 DARE"}


def test_marks_of_table_1():
    found = marks.table_1_underlines()
    assert found.verdict == Verdict.CORRECTED
    assert found.numbers == {"missing": 1, "surplus": 5}


def test_marks_of_table_4_are_right():
    assert marks.table_4_underlines().verdict == Verdict.CONFIRMED


def test_a_change_as_large_as_the_lead_is_not_little(monkeypatch):
    table = with_cell(printed_table(2), "512", "Avg", "72.400")
    monkeypatch.setattr(changes, "printed_table", lambda _: table)
    assert changes.sample_size().verdict == Verdict.CORRECTED


def test_rows_printed_twice_agree_and_are_compared(monkeypatch):
    assert changes.repeated_rows().verdict == Verdict.CONFIRMED
    table = with_cell(printed_table(5), "All", "DTD", "54.860")

    def printed(number):
        return table if number == 5 else printed_table(number)

    monkeypatch.setattr(changes, "printed_table", printed)
    assert changes.repeated_rows().verdict == Verdict.CORRECTED

from decimal import Decimal

import pytest

from paper_checks.tables import TABLES, printed_table, quoted_variances

SHAPES = {1: (12, 9), 2: (3, 9), 3: (4, 9), 4: (4, 6), 5: (3, 9), 6: (3, 9)}


@pytest.mark.parametrize("number", TABLES)
def test_tables_have_the_printed_shape(number):
    table = printed_table(number)
    assert (len(table.rows), len(table.columns)) == SHAPES[number]
    assert all(tuple(row.with_average()) == table.columns for row in table.rows)
    assert len({row.name for row in table.rows}) == len(table.rows)


@pytest.mark.parametrize("number", TABLES)
def test_cells_are_percentages(number):
    for row in printed_table(number).rows:
        assert all(0 <= cell.value <= 100 for cell in row.with_average().values())


def test_cells_keep_their_printed_digits():
    cell = printed_table(2).row("128").cells["MNIST"]
    assert (str(cell.value), cell.decimals) == ("97.620", 3)
    assert cell.half_unit == Decimal("0.0005")


def test_underlines_are_read():
    table = printed_table(1).of("ViT-B/32")
    assert table.row("M-TIES").cells["RESISC45"].underlined
    assert not table.row("TIES").cells["RESISC45"].underlined
    assert all(
        cell.underlined for cell in printed_table(4).row("M-TIES").cells.values()
    )


def test_the_paper_has_six_tables():
    with pytest.raises(KeyError, match="Tables 1 to 6"):
        printed_table(7)


def test_three_variances_are_quoted():
    assert [str(cell.value) for cell in quoted_variances().values()] == [
        "172.22",
        "203.27",
        "197.61",
    ]

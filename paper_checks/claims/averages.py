"""Row averages of Tables 1 to 6, recomputed from the printed cells."""

from decimal import Decimal
from functools import partial
from statistics import mean

from paper_checks.record import Finding, How, Verdict
from paper_checks.registry import claim
from paper_checks.tables import TABLES, Row, printed_table

# MNIST has 10,000 test images, so its two decimals are exact.
_EXACT = frozenset({"MNIST"})
_WITH_A_SLIP = frozenset({3})


def averages(number: int) -> Finding:
    """Compare every printed average of a table with the mean of its row.

    An average is wrong when it is further from the mean of the printed cells than
    rounding of the cells and of the average itself can explain.
    """
    rows = [row for row in printed_table(number).rows if row.name != "Std"]
    wrong = [row for row in rows if _off(row) > _rounding(row)]
    furthest = max(rows, key=_off)
    return Finding(
        Verdict.CORRECTED if wrong else Verdict.CONFIRMED,
        found=f"{len(rows) - len(wrong)} of {len(rows)} averages are the mean of their "
        f"row; the furthest is off by {_off(furthest):.4f}",
        uncertainty=f"rounding of the printed digits, {_rounding(furthest):.4f}",
        how=(How.ARITHMETIC,),
        truth="; ".join(map(_correction, wrong)),
        numbers={"rows": len(rows), "wrong": len(wrong), "off": float(_off(furthest))},
    )


def _off(row: Row) -> Decimal:
    return abs(row.average.value - mean(row.accuracies()))


def _rounding(row: Row) -> Decimal:
    of_cells = mean(
        Decimal(0) if name in _EXACT else cell.half_unit
        for name, cell in row.cells.items()
    )
    return row.average.half_unit + of_cells


def _correction(row: Row) -> str:
    rounded = round(mean(row.accuracies()), row.average.decimals)
    return f"The cells of row {row.name} average {rounded}, not {row.average.value}."


for _number in TABLES:
    claim(
        f"table-{_number}-averages",
        where=f"Table {_number}, column Avg",
        states=f"Every Avg of Table {_number} is the mean of its row",
        recorded="corrected" if _number in _WITH_A_SLIP else "confirmed",
    )(partial(averages, _number))

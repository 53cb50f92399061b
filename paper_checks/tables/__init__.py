"""The printed numbers of Tables 1 to 6, exactly as decimals."""

from collections.abc import Callable
from csv import reader
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files
from re import fullmatch

__all__ = ["Cell", "Row", "Table", "printed_table", "quoted_variances"]

TABLES = (1, 2, 3, 4, 5, 6)
# Backbone and method; the others have one label column.
_LABELS = {1: 2}


@dataclass(frozen=True)
class Cell:
    """A printed number, its decimals, and whether our text underlines it."""

    value: Decimal
    decimals: int
    underlined: bool

    @property
    def half_unit(self) -> Decimal:
        """Half a unit of the last printed digit: the largest rounding error."""
        return Decimal(5).scaleb(-self.decimals - 1)


@dataclass(frozen=True)
class Row:
    """One printed row: its labels, the cell of each dataset and the printed average."""

    labels: tuple[str, ...]
    cells: dict[str, Cell]
    average: Cell

    @property
    def name(self) -> str:
        """The labels in one phrase, such as `ViT-B/32 M-TIES`."""
        return " ".join(self.labels)

    def accuracies(self) -> tuple[Decimal, ...]:
        """Return the dataset cells, without the average."""
        return tuple(cell.value for cell in self.cells.values())

    def with_average(self) -> dict[str, Cell]:
        """Return the dataset cells and the average under `Avg`."""
        return {**self.cells, "Avg": self.average}


@dataclass(frozen=True)
class Table:
    """A printed table, its rows in order."""

    number: int
    rows: tuple[Row, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The datasets, then `Avg`."""
        return tuple(self.rows[0].with_average())

    def where(self, keep: Callable[[Row], bool]) -> "Table":
        """Return the table of the rows that `keep` accepts."""
        return Table(self.number, tuple(filter(keep, self.rows)))

    def of(self, backbone: str) -> "Table":
        """Return the rows whose first label is this backbone."""
        return self.where(lambda row: row.labels[0] == backbone)

    def row(self, *labels: str) -> Row:
        """Return the one row whose last labels are these."""
        (found,) = (row for row in self.rows if row.labels[-len(labels) :] == labels)
        return found

    def column(self, name: str) -> dict[str, Cell]:
        """Cells of one column by the row's last label."""
        return {row.labels[-1]: row.with_average()[name] for row in self.rows}


@cache
def printed_table(number: int) -> Table:
    """Table 1 to 6 of the paper; another number is a KeyError."""
    if number not in TABLES:
        raise KeyError(f"the paper has Tables 1 to 6, not {number}")
    labels = _LABELS.get(number, 1)
    header, *lines = _lines(f"table-{number}.csv")
    return Table(number, tuple(_row(header, line, labels=labels) for line in lines))


def quoted_variances() -> dict[tuple[str, str], Cell]:
    """Return the variances quoted in Section 6.3 by (backbone, method)."""
    _, *lines = _lines("quoted-variances.csv")
    return {(backbone, method): _cell(text) for backbone, method, text in lines}


def _lines(name: str) -> list[list[str]]:
    text = (files(__name__) / name).read_text(encoding="utf-8")
    return list(reader(text.splitlines(), strict=True))


def _row(header: list[str], line: list[str], *, labels: int) -> Row:
    cells = dict(zip(header[labels:], map(_cell, line[labels:]), strict=True))
    return Row(tuple(line[:labels]), cells, average=cells.pop("Avg"))


def _cell(text: str) -> Cell:
    match = fullmatch(r"(<u>)?(\d+\.(\d+))(?(1)</u>)", text)
    if not match:
        raise ValueError(f"a cell is a decimal number, maybe in <u></u>, not {text!r}")
    mark, value, fraction = match.groups()
    return Cell(Decimal(value), decimals=len(fraction), underlined=bool(mark))

"""Which cells of Tables 1 and 4 are best and second best, and which are marked so.

Our text of the paper shows underlines, perhaps not all in their place, and no bold.
"""

from dataclasses import dataclass
from itertools import pairwise

from paper_checks.claims.comparisons import BACKBONES
from paper_checks.record import Finding, How, Verdict
from paper_checks.registry import claim
from paper_checks.tables import Table, printed_table

_EXTRACTION = "the marks come from a text extraction, which may misplace them"


@dataclass(frozen=True)
class Marks:
    """Cells that rank second, those underlined, and those below a deserved mark."""

    deserved: frozenset[tuple[str, str]]
    printed: frozenset[tuple[str, str]]
    below_deserved: frozenset[tuple[str, str]]

    @property
    def missing(self) -> frozenset[tuple[str, str]]:
        """Second-best cells without an underline."""
        return self.deserved - self.printed

    @property
    def surplus(self) -> frozenset[tuple[str, str]]:
        """Underlined cells that are not second best."""
        return self.printed - self.deserved


def ranked(table: Table, place: int) -> frozenset[tuple[str, str]]:
    """Cells (row, column) holding the place-th highest distinct value of a column."""
    found = set()
    for column in table.columns:
        cells = {row.name: row.with_average()[column].value for row in table.rows}
        level = sorted(set(cells.values()), reverse=True)[place - 1]
        found |= {(name, column) for name, value in cells.items() if value == level}
    return frozenset(found)


def second_best_marks(table: Table) -> Marks:
    """Compare the second-best cells of a table with its underlined ones."""
    names = [row.name for row in table.rows]
    deserved = ranked(table, 2)
    return Marks(
        deserved,
        printed=frozenset(
            (row.name, column)
            for row in table.rows
            for column, cell in row.with_average().items()
            if cell.underlined
        ),
        below_deserved=frozenset(
            (below, column)
            for above, below in pairwise(names)
            for column in table.columns
            if (above, column) in deserved
        ),
    )


def _judged(marks: list[Marks]) -> Finding:
    deserved = sum(len(m.deserved) for m in marks)
    missing = sorted(cell for m in marks for cell in m.missing)
    surplus = sorted(cell for m in marks for cell in m.surplus)
    displaced = sum(len(m.surplus & m.below_deserved) for m in marks)
    wrong = bool(missing or surplus)
    return Finding(
        Verdict.CORRECTED if wrong else Verdict.CONFIRMED,
        found=f"{deserved - len(missing)} of {deserved} second-best cells are marked"
        f"; missing: {_listed(missing)}; surplus: {_listed(surplus)}"
        + (f" ({displaced} of them right below a deserved mark)" if surplus else ""),
        uncertainty=_EXTRACTION,
        how=(How.ARITHMETIC,),
        truth="In the text we read, without an underline though second best: "
        f"{_listed(missing)}; underlined without being second best: {_listed(surplus)}."
        if wrong
        else "",
        numbers={"missing": len(missing), "surplus": len(surplus)},
    )


def _listed(cells: list[tuple[str, str]]) -> str:
    return ", ".join(f"{row} {column}" for row, column in cells) or "none"


@claim(
    "table-1-second-best",
    where="Table 1, caption",
    states="The second-best result of each backbone and dataset is underlined",
    recorded="corrected",
)
def table_1_underlines() -> Finding:
    """Compare the underlines of Table 1 with the ranks of its cells."""
    return _judged([second_best_marks(printed_table(1).of(b)) for b in BACKBONES])


@claim(
    "table-4-second-best",
    where="Table 4",
    states="M-TIES is underlined as second best throughout",
    recorded="confirmed",
)
def table_4_underlines() -> Finding:
    """Compare the underlines of Table 4 with the ranks of its cells."""
    return _judged([second_best_marks(printed_table(4))])


@claim(
    "table-1-best",
    where="Table 1, caption",
    states="The best result of each backbone and dataset is in bold",
    recorded="not checkable here",
)
def table_1_bold() -> Finding:
    """List the cells that deserve bold."""
    best = (sorted(ranked(printed_table(1).of(b), 1)) for b in BACKBONES)
    deserved = "; ".join(_listed(cells) for cells in best)
    return Finding.not_checkable(
        "Our text of the paper does not show bold, so only the cells that deserve it "
        "can be listed.",
        found=f"bold belongs to {deserved}",
    )

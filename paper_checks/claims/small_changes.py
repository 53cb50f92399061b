"""Changes that Tables 2, 5 and 6 call little or none, and rows printed twice."""

from paper_checks.claims.comparisons import margin_over_next
from paper_checks.record import Finding, How, Verdict
from paper_checks.registry import claim
from paper_checks.tables import Row, printed_table


def change_from_first_row(number: int, backbone: str) -> Finding:
    """Compare every row of a table with its first.

    Little means that the average moves by less than a tenth of M-TIES' lead over
    the next merging method, which is what the change would have to rival.
    """
    first, *others = printed_table(number).rows
    of_average = max(abs(row.average.value - first.average.value) for row in others)
    of_cell, task = max(
        (abs(row.cells[name].value - first.cells[name].value), name)
        for row in others
        for name in first.cells
    )
    lead = margin_over_next(backbone)
    little = of_average < lead / 10
    return Finding(
        Verdict.CONFIRMED if little else Verdict.CORRECTED,
        found=f"the average moves by at most {of_average} and a task by {of_cell} "
        f"({task}), beside a lead of {lead} over the next method",
        uncertainty="none for the printed cells; one run a row; that little means a "
        "tenth of the lead is our threshold",
        how=(How.ARITHMETIC,),
        truth="" if little else "The change is more than a tenth of M-TIES' lead.",
        numbers={"average": float(of_average), "task": float(of_cell)},
    )


@claim(
    "sample-size-little-change",
    where="Section 6.4, Table 2",
    states="There is little change as the sample for M-Loss grows from 128 to 512",
    recorded="confirmed",
)
def sample_size() -> Finding:
    """Compare the rows of Table 2."""
    return change_from_first_row(2, "ViT-B/32")


@claim(
    "few-layer-vit-b-32-no-change",
    where="Section 6.6, Table 5",
    states="Few-Layer M-TIES has almost no change to the performance (ViT-B/32)",
    recorded="confirmed",
)
def few_layer_small_backbone() -> Finding:
    """Compare the rows of Table 5."""
    return change_from_first_row(5, "ViT-B/32")


@claim(
    "few-layer-vit-l-14-no-change",
    where="Section 6.6, Table 6",
    states="Few-Layer M-TIES has almost no change to the performance (ViT-L/14)",
    recorded="confirmed",
)
def few_layer_large_backbone() -> Finding:
    """Compare the rows of Table 6."""
    return change_from_first_row(6, "ViT-L/14")


@claim(
    "tables-repeat-their-runs",
    where="Tables 1, 2, 3, 5 and 6",
    states="The default M-TIES run is printed alike wherever it appears",
    recorded="confirmed",
)
def repeated_rows() -> Finding:
    """Compare the rows that show one run, up to the rounding of both."""
    small = printed_table(5).row("All")
    pairs = [
        (small, printed_table(2).row("128")),
        (small, printed_table(3).row("42")),
        (small, printed_table(1).row("ViT-B/32", "M-TIES")),
        (printed_table(6).row("All"), printed_table(1).row("ViT-L/14", "M-TIES")),
    ]
    apart = [f"{a.name} and {b.name}" for a, b in pairs if not _alike(a, b)]
    return Finding(
        Verdict.CORRECTED if apart else Verdict.CONFIRMED,
        found=f"{len(pairs) - len(apart)} of {len(pairs)} pairs of rows agree",
        uncertainty="rounding of the printed digits",
        how=(How.ARITHMETIC,),
        truth=f"These rows differ: {'; '.join(apart)}." if apart else "",
        numbers={"pairs": len(pairs), "apart": len(apart)},
    )


def _alike(a: Row, b: Row) -> bool:
    theirs = b.with_average()
    return all(
        abs(cell.value - theirs[name].value) <= cell.half_unit + theirs[name].half_unit
        for name, cell in a.with_average().items()
    )

"""What `mloss compare --select` writes beside the weights of the best merge."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mloss.commands.family import Family
from mloss.commands.merge_record import CARD, RECORD, as_text, merge_notes, merge_record
from mloss.commands.provenance import provenance
from mloss.compare import Outcome
from mloss.report.numbers import percent

# What the names of merges that are there already start with in a comparison.
MERGED = "merged:"


def selection_notes(
    options: argparse.Namespace, family: Family, best: Outcome, written: Path
) -> dict[str, str]:
    """What `mloss merge` writes, or where a merge that was not made here came from."""
    made = best.candidate
    if made is None:
        record = _record_of_copy(options, family, best)
        return {RECORD: as_text(record), CARD: _card_of_copy(record, best)}
    as_merge = argparse.Namespace(**(vars(options) | {"method": made.method}))
    record = merge_record(
        as_merge, family, own=made.options, texts={}, distance=best.gap
    )
    return merge_notes(record, best.gap, written)


def _record_of_copy(
    options: argparse.Namespace, family: Family, best: Outcome
) -> dict[str, Any]:
    return {
        "out": str(options.out),
        "method": None,
        "copied_from": best.name.removeprefix(MERGED),
        "gap": asdict(best.gap),
        "made_from": provenance(options, family),
    }


def _card_of_copy(record: dict[str, Any], best: Outcome) -> str:
    name = Path(record["out"]).absolute().name
    source = Path(record["copied_from"]).name
    return (
        f"---\ntags:\n- merge\n- mloss\n---\n\n# {name}\n\n"
        f"A copy of the merge {source}, which mloss did not make, in the dtypes of "
        "the base. It came first of the merges compared, agreeing with the fine-tuned "
        f"models on {percent(best.agreement.value)} of unlabelled samples in the mean "
        "over the tasks.\n\n`mloss.json` records where it came from and "
        "`comparison.json` what it was compared with.\n"
    )

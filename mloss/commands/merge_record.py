"""What is written beside merged weights: a record for machines, a card for people."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mloss.commands.family import Family
from mloss.commands.model_card import model_card
from mloss.commands.provenance import provenance
from mloss.gap import Gap
from mloss.merging import METHODS
from mloss.report.record import without_infinities

RECORD = "mloss.json"
CARD = "README.md"


def merge_record(
    options: argparse.Namespace,
    family: Family,
    *,
    own: Mapping[str, Any],
    texts: Mapping[str, str],
    distance: Gap | None,
    mloss: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Everything that a merge was made from, and how far it is from the ensemble.

    `own` holds the method's own options that were given, `texts` as they were given;
    `mloss` the mean node M-Loss of each layer, where it guided the merge.
    """
    method = METHODS[options.method]
    used = {**method.options, **own}
    return {
        "out": str(options.out),
        "method": method.name,
        "citation": method.source,
        "options": {n: _plain(value, texts.get(n)) for n, value in used.items()},
        "gap": None if distance is None else asdict(distance),
        "mean_node_mloss": dict(mloss or {}),
        "made_from": provenance(options, family),
    }


def as_text(record: Mapping[str, Any]) -> str:
    """The record in JSON."""
    return json.dumps(without_infinities(record), indent=2, allow_nan=False) + "\n"


def merge_notes(
    record: Mapping[str, Any], distance: Gap | None, written: Path
) -> dict[str, str]:
    """The files to write beside the weights that are in a directory, by name."""
    origin = record["made_from"]
    card = model_card(
        name=Path(record["out"]).absolute().name,
        base=origin["base"],
        sources=origin["sources"],
        weights=origin["weights"],
        method=record["method"],
        options=record["options"],
        gap=distance,
        mloss=record["mean_node_mloss"],
        library="transformers" if (written / "config.json").is_file() else None,
    )
    return {RECORD: as_text(record), CARD: card}


def _plain(value: object, text: str | None) -> object:
    """An option as it is where JSON has it, and else as it was given."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    known = value is None or isinstance(value, str | int | float)
    return value if known else text or str(value)

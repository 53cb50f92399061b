"""The whole report as plain values, for JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import PurePath
from typing import TypeAlias

from mloss.agreement import agreements
from mloss.gap import Gap
from mloss.report.beyond import Beyond, as_values
from mloss.report.layers import layer_rows
from mloss.report.numbers import finite
from mloss.report.verdict import verdict
from mloss.report.worst_nodes import worst_nodes
from mloss.score import Score

# What a run was made from: base, sources, seed, versions and so on, by name.
Provenance: TypeAlias = Mapping[str, object]


def as_json(
    score: Score,
    *,
    provenance: Provenance,
    gap: Gap | None = None,
    explanation: str | None = None,
    beyond: Beyond | None = None,
    worst: int = 20,
) -> dict[str, object]:
    """The numbers of the report, and what it says about them.

    Everything is a dict, list, string, number, bool or None; what is not finite or
    not known is None.
    """
    found = agreements(score)
    report = {
        "verdict": asdict(verdict(score, gap=gap)),
        "samples": score.samples,
        "gap": None if gap is None else asdict(gap),
        "explanation": explanation,
        "beyond_activations": None if beyond is None else as_values(beyond),
        "layers": [asdict(row) for row in layer_rows(score, found)],
        "worst_nodes": [asdict(node) for node in worst_nodes(score, count=worst)],
        "agreement": [asdict(row) for row in found],
        "provenance": provenance,
    }
    return {name: without_infinities(value) for name, value in report.items()}


def without_infinities(value: object) -> object:
    """A value for JSON: None for numbers that are not finite, text for paths.

    Raises TypeError for what JSON has no word for.
    """
    if isinstance(value, float):
        return finite(value)
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): without_infinities(part) for name, part in value.items()}
    if isinstance(value, Sequence):
        return [without_infinities(part) for part in value]
    raise TypeError(f"provenance holds a {type(value).__name__}, which JSON has not")

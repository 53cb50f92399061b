"""Choosing between merges without labels, by their agreement with the experts."""

from mloss.compare.agreement import Agreement, agreement
from mloss.compare.candidates import (
    Candidate,
    default_candidates,
    default_grid,
    grid,
)
from mloss.compare.comparison import compare
from mloss.compare.heads import LinearHead, read_head
from mloss.compare.intervals import Interval
from mloss.compare.outcomes import Comparison, Outcome
from mloss.compare.separation import Lead

__all__ = [
    "Agreement",
    "Candidate",
    "Comparison",
    "Interval",
    "Lead",
    "LinearHead",
    "Outcome",
    "agreement",
    "compare",
    "default_candidates",
    "default_grid",
    "grid",
    "read_head",
]

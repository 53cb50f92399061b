"""The claims of the paper, one module a subject; importing this registers them all."""

from importlib import import_module

from paper_checks.registry import CLAIMS

__all__ = ["CLAIMS"]

# In the order of the paper, which is the order of the report.
for _module in (
    "definitions",
    "correlated_parameters",
    "approximations",
    "readings",
    "consequences",
    "sources_of_the_gap",
    "predicting_merges",
    "comparisons",
    "guided_pruning",
    "costs",
    "marks",
    "averages",
    "spread",
    "small_changes",
    "elsewhere",
):
    import_module(f"{__name__}.{_module}")

"""Merging methods: pure functions from state dicts to a new state dict."""

from mloss.merging import methods as _methods  # noqa: F401  # enters every method
from mloss.merging.keep_rates import keep_rates
from mloss.merging.merged import Merged, merge, merged_lazily
from mloss.merging.methods.average import average
from mloss.merging.methods.dare import dare
from mloss.merging.methods.m_ties import m_ties
from mloss.merging.methods.task_arithmetic import task_arithmetic
from mloss.merging.methods.ties import ties
from mloss.merging.registry import METHODS, Method, merging_method
from mloss.merging.row_wise import row_wise_ties

__all__ = [
    "METHODS",
    "Merged",
    "Method",
    "average",
    "dare",
    "keep_rates",
    "m_ties",
    "merge",
    "merged_lazily",
    "merging_method",
    "row_wise_ties",
    "task_arithmetic",
    "ties",
]

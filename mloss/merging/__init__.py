"""Merging methods: pure functions from state dicts to a new state dict."""

from mloss.merging.average import average
from mloss.merging.dare import dare
from mloss.merging.keep_rates import keep_rates
from mloss.merging.m_ties import m_ties
from mloss.merging.methods import DATA_METHODS, METHODS, Merged, merge
from mloss.merging.row_wise import row_wise_ties
from mloss.merging.task_arithmetic import task_arithmetic
from mloss.merging.ties import ties

__all__ = [
    "DATA_METHODS",
    "METHODS",
    "Merged",
    "average",
    "dare",
    "keep_rates",
    "m_ties",
    "merge",
    "row_wise_ties",
    "task_arithmetic",
    "ties",
]

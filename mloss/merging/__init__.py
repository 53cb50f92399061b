"""Merging methods: pure functions from state dicts to a new state dict."""

from mloss.merging import methods as _methods  # noqa: F401  # enters every method
from mloss.merging.merged import Merged, mean_scores, merge, merged_lazily
from mloss.merging.methods.activation_regression import activation_regression
from mloss.merging.methods.adamerging import adamerging
from mloss.merging.methods.average import average
from mloss.merging.methods.bias_folding import bias_folding
from mloss.merging.methods.bias_folding_data_free import bias_folding_data_free
from mloss.merging.methods.consensus import consensus
from mloss.merging.methods.dare import dare
from mloss.merging.methods.dare_linear import dare_linear
from mloss.merging.methods.dare_ties import dare_ties
from mloss.merging.methods.fisher import fisher
from mloss.merging.methods.fitted_coefficients import fitted_coefficients
from mloss.merging.methods.iso_c import iso_c
from mloss.merging.methods.iso_cts import iso_cts
from mloss.merging.methods.lines import lines
from mloss.merging.methods.m_dare import m_dare
from mloss.merging.methods.m_ties import m_ties
from mloss.merging.methods.model_stock import model_stock
from mloss.merging.methods.opcm import opcm
from mloss.merging.methods.pcb_merging import pcb_merging
from mloss.merging.methods.regmean import regmean
from mloss.merging.methods.regmean_plus_plus import regmean_plus_plus
from mloss.merging.methods.slerp import slerp
from mloss.merging.methods.task_arithmetic import task_arithmetic
from mloss.merging.methods.ties import ties
from mloss.merging.methods.tsv_m import tsv_m
from mloss.merging.pruning.keep_rates import keep_rates
from mloss.merging.pruning.node_rates import NodeRates
from mloss.merging.pruning.row_wise import row_wise_ties
from mloss.merging.registry import METHODS, Method, merging_method

__all__ = [
    "METHODS",
    "Merged",
    "Method",
    "NodeRates",
    "activation_regression",
    "adamerging",
    "average",
    "bias_folding",
    "bias_folding_data_free",
    "consensus",
    "dare",
    "dare_linear",
    "dare_ties",
    "fisher",
    "fitted_coefficients",
    "iso_c",
    "iso_cts",
    "keep_rates",
    "lines",
    "m_dare",
    "m_ties",
    "mean_scores",
    "merge",
    "merged_lazily",
    "merging_method",
    "model_stock",
    "opcm",
    "pcb_merging",
    "regmean",
    "regmean_plus_plus",
    "row_wise_ties",
    "slerp",
    "task_arithmetic",
    "ties",
    "tsv_m",
]

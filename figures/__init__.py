"""Figures of a two-column paper: arrays in, a matplotlib `Figure` out."""

from figures.expectation import Curves, ErrorMap, approximation_error, expectation
from figures.network import Dots, Prediction, merging_methods, node_map, predicted_gap

__all__ = [
    "Curves",
    "Dots",
    "ErrorMap",
    "Prediction",
    "approximation_error",
    "expectation",
    "merging_methods",
    "node_map",
    "predicted_gap",
]

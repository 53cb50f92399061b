"""Simulated M-Loss, computed from its definition and nothing else."""

from simulate.estimators import Estimate, estimate_layer_mloss, estimate_mloss
from simulate.gated import estimate_gated_mloss
from simulate.inputs import Empirical, Gaussian, Laplace, Uniform
from simulate.networks import NetworkMeasurements, measure_networks
from simulate.sweep import sweep

__all__ = [
    "Empirical",
    "Estimate",
    "Gaussian",
    "Laplace",
    "NetworkMeasurements",
    "Uniform",
    "estimate_gated_mloss",
    "estimate_layer_mloss",
    "estimate_mloss",
    "measure_networks",
    "sweep",
]

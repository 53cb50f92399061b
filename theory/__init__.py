"""What expected M-Loss is: closed forms, bounds, and the paper's printed formulas."""

from theory.activations import Activation, LeakyReLU
from theory.certified import Enclosure, certified_mloss
from theory.density import (
    Density,
    density_bound,
    density_law,
    gaussian_base_mloss,
    histogram_density,
    laplace_density,
    mixture_density,
    normal_density,
)
from theory.depth import DepthBound, Layer, depth_bound, lipschitz_constant
from theory.distribution import (
    estimated_second_moment,
    mloss_cdf,
    mloss_second_moment,
    mloss_survival,
    mloss_variance,
    mloss_zero_probability,
)
from theory.expectation import expected_mloss
from theory.gated import expected_gated_mloss, gated_mloss_bound, gated_mloss_limit
from theory.layers.layer import expected_layer_mloss, layer_bounds
from theory.layers.normalized import estimated_normalized_mloss, normalized_mloss
from theory.layers.normalized_layer import (
    expected_normalized_layer_mloss,
    normalized_layer_bounds,
)
from theory.many import Evaluation, estimated_mloss
from theory.printed import paper_approximation
from theory.second_order import Expansion, small_error_expansion
from theory.two_layer import ReluGapMoments, linear_gap_second_moment, relu_gap_moments
from theory.validity import largest_sigma, predicted_sigma
from theory.variation import mloss_bound, total_variation

__all__ = [
    "Activation",
    "Density",
    "DepthBound",
    "Enclosure",
    "Evaluation",
    "Expansion",
    "Layer",
    "LeakyReLU",
    "ReluGapMoments",
    "certified_mloss",
    "density_bound",
    "density_law",
    "depth_bound",
    "estimated_mloss",
    "estimated_normalized_mloss",
    "estimated_second_moment",
    "expected_gated_mloss",
    "expected_layer_mloss",
    "expected_mloss",
    "expected_normalized_layer_mloss",
    "gated_mloss_bound",
    "gated_mloss_limit",
    "gaussian_base_mloss",
    "histogram_density",
    "laplace_density",
    "largest_sigma",
    "layer_bounds",
    "linear_gap_second_moment",
    "lipschitz_constant",
    "mixture_density",
    "mloss_bound",
    "mloss_cdf",
    "mloss_second_moment",
    "mloss_survival",
    "mloss_variance",
    "mloss_zero_probability",
    "normal_density",
    "normalized_layer_bounds",
    "normalized_mloss",
    "paper_approximation",
    "predicted_sigma",
    "relu_gap_moments",
    "small_error_expansion",
    "total_variation",
]

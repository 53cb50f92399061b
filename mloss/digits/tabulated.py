"""Exact expected M-Loss at many thousands of nodes, read off a table."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator

from theory import expected_mloss

Array = NDArray[np.float64]

_POINTS_PER_DECADE = 16
_FEWEST_POINTS = 12


def tabulated_mloss(activation: str, k: Array, sigma: Array) -> Array:
    """`theory.expected_mloss` of two independent sources, within half a percent.

    k and sigma are positive and of one shape. The exact value is computed on a grid
    over their ranges, even in log k and log sigma, and its logarithm interpolated by
    cubic splines: one quadrature for a grid point instead of one for a node.
    """
    log_k, log_sigma = _grid(k), _grid(sigma)
    exact = expected_mloss(activation, np.exp(log_k)[:, None], np.exp(log_sigma))
    table = RegularGridInterpolator((log_k, log_sigma), np.log(exact), method="cubic")
    values: Array = np.exp(table(np.stack([np.log(k), np.log(sigma)], axis=-1)))
    return values


def _grid(values: Array) -> Array:
    """Logarithms that bracket those of the values."""
    margin = 1e-9  # so that rounding puts no value outside
    low, high = np.log(values.min()) - margin, np.log(values.max()) + margin
    points = math.ceil(_POINTS_PER_DECADE * (high - low) / math.log(10)) + 1
    return np.linspace(low, high, max(points, _FEWEST_POINTS))

"""A panel rule for integrands that have a power or a logarithm at a panel's ends."""

import numpy as np
from scipy.special import roots_legendre

from theory.activations import Array

# t^2 (3 - 2 t) for t in (0, 1) is flat at both ends, and so makes what is singular
# there, as a power or a logarithm is, smooth.
_T, _GAUSS = (1 + roots_legendre(16)[0]) / 2, roots_legendre(16)[1] / 2
_STEP, _WEIGHTS = _T**2 * (3 - 2 * _T), 6 * _T * (1 - _T) * _GAUSS

NODES = len(_STEP)  # of a panel


def step_rule(edges: Array) -> tuple[Array, Array]:
    """Nodes and weights [..., node] of the integral over panels [..., edge].

    As `panel_rule`, with Gauss's nodes moved towards the ends of each panel.
    """
    edges = np.sort(edges, axis=-1)
    width = np.diff(edges)[..., None]
    nodes = edges[..., :-1, None] + width * _STEP
    shape = (*edges.shape[:-1], -1)
    return nodes.reshape(shape), (width * _WEIGHTS).reshape(shape)

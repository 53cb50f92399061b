"""Gauss-Legendre rules over panels whose edges differ from row to row."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import roots_legendre

Array = NDArray[np.float64]

_NODES, _WEIGHTS = roots_legendre(16)


def panel_rule(edges: Array) -> tuple[Array, Array]:
    """Nodes and weights [..., node] of the integral over panels [..., edge].

    Edges need no order: they are sorted here, and equal ones make empty panels.
    """
    edges = np.sort(edges, axis=-1)
    half = np.diff(edges)[..., None] / 2
    nodes = edges[..., :-1, None] + half * (1 + _NODES)
    shape = (*edges.shape[:-1], -1)
    return nodes.reshape(shape), (half * _WEIGHTS).reshape(shape)

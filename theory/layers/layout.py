"""Which nodes make up which layer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.activations import Array
from theory.layers.node import Nodes


@dataclass(frozen=True)
class Layout:
    """Layers of nodes of distinct laws: how many of each, [layer, law]."""

    counts: NDArray[np.int64]
    shape: tuple[int, ...]

    def each(self, expectation: Callable[[list[int], Array], float]) -> Array:
        """One number for each layer, from the laws it has and how many of each."""
        values = []
        for counts in self.counts:
            present = np.flatnonzero(counts)
            values.append(expectation(present.tolist(), counts[present].astype(float)))
        return np.array(values).reshape(self.shape)


def over_nodes(values: Array, nodes: Any) -> Array:
    """The sum of one value a node over each layer.

    `nodes` equal nodes each, or those of the last axis where `nodes` is None.
    """
    if nodes is not None:
        return values * _count(nodes)
    if values.ndim == 0:
        raise ValueError(
            "nodes must be given, or k or sigma have an axis of nodes: both are scalars"
        )
    total: Array = values.sum(axis=-1)
    return total


def distinct_nodes(nodes: Nodes, count: Any) -> tuple[Nodes, Layout]:
    """The distinct laws among the nodes, and the layers that they make up.

    `count` equal nodes each, or those of the last axis where `count` is None.
    """
    shape = over_nodes(np.zeros(nodes.k.shape), count).shape
    pairs = np.stack([nodes.k.ravel(), nodes.sigma.ravel()])
    found, place = np.unique(pairs, axis=1, return_inverse=True)
    place = place.reshape(int(np.prod(shape)), -1)
    counts = np.array([np.bincount(row, minlength=found.shape[1]) for row in place])
    distinct = replace(nodes, k=found[0], sigma=found[1])
    return distinct, Layout(counts * (1 if count is None else count), shape)


def _count(nodes: Any) -> int:
    whole = isinstance(nodes, (int, np.integer)) and not isinstance(nodes, bool)
    if not whole or nodes < 1:
        raise ValueError(f"nodes must be a whole number >= 1, got {nodes!r}")
    return int(nodes)

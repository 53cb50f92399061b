r"""A layer's M-Loss L, the norm of its nodes' D (paper Eqs. 3 and 5).

Nodes may differ in k and sigma, as a real layer's do; they share the activation, the
weights and the covariance of the errors. Bounds hold however the nodes depend on one
another. The exact form is for independent nodes. docs/layer.md, sections 2 and 3.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from theory.activations import Activation, Array, Elementwise
from theory.distribution import estimated_second_moment
from theory.layers.layout import distinct_nodes, over_nodes
from theory.layers.node import nodes_under
from theory.layers.norm import gap_law, mean_norm
from theory.many import estimated_mloss


def layer_bounds(
    activation: str | Activation | Elementwise,
    k: ArrayLike,
    sigma: ArrayLike,
    *,
    nodes: int | None = None,
    q: int = 2,
    weights: ArrayLike | None = None,
    cov: ArrayLike | None = None,
    rtol: float = 1e-3,
    seed: int = 0,
) -> tuple[Array, Array]:
    r"""sqrt(sum_j (E D_j)^2) <= E[L] <= sqrt(sum_j E[D_j^2]) (Eq. 3).

    With `nodes`, that many nodes of each k and sigma: sqrt(d) E[D] and
    sqrt(d E[D^2]). Without, the last axis of k and sigma is the layer's, and the
    bounds lack it. By Jensen's inequality, twice: E||D|| >= ||E D||, and
    (E L)^2 <= E[L^2]. They need no independence. For more than two sources the two
    expectations may be sampled, to `rtol` and from `seed`; their errors widen the
    bounds. Raises as `estimated_mloss` and `estimated_second_moment` do, and
    ValueError for nodes not a count.
    """
    given: dict[str, Any] = {"q": q, "weights": weights, "cov": cov}
    given |= {"rtol": rtol, "seed": seed}
    square = estimated_second_moment(activation, k, sigma, **given)
    mean = estimated_mloss(activation, k, sigma, **given)
    lower = over_nodes((mean.value - mean.error) ** 2, nodes)
    return np.sqrt(lower), np.sqrt(over_nodes(square.value + square.error, nodes))


def expected_layer_mloss(
    activation: str | Activation | Elementwise,
    k: ArrayLike,
    sigma: ArrayLike,
    *,
    nodes: int | None = None,
    q: int = 2,
    weights: ArrayLike | None = None,
    cov: ArrayLike | None = None,
) -> Array:
    r"""E[L] over independent nodes (Eqs. 3 and 5); two sources, any activation.

    With `nodes`, that many nodes of each k and sigma; without, the last axis of k and
    sigma is the layer's. To 1e-8, as `normalized_mloss` is, and to 1e-10 for ReLU and
    Leaky ReLU. Raises ValueError as `normalized_mloss` does, and for nodes not a
    count.
    """
    found = nodes_under(activation, k, sigma, q=q, weights=weights, cov=cov)
    distinct, layout = distinct_nodes(found.two_sources(), nodes)
    laws = [gap_law(node.points()) for node in distinct]
    return layout.each(lambda at, counts: mean_norm([laws[i] for i in at], counts))

r"""The normalised M-Loss of a node, R = D / (|f(m)| + eps) (paper Eq. 7).

Where the merged output is zero the denominator is eps alone: for ReLU half of the
expectation is there, and dominates. docs/layer.md, section 4.
"""

import numpy as np
from numpy.typing import ArrayLike

from theory.activations import Activation, Array, Elementwise
from theory.law import positive, scales
from theory.layers.merged_output import marks_about_zeros, output_zeros
from theory.layers.node import Integrand, Node, Nodes, nodes_under
from theory.layers.node_means import node_means
from theory.many import Evaluation


def normalized_mloss(
    activation: str | Activation | Elementwise,
    k: ArrayLike,
    sigma: ArrayLike,
    *,
    eps: ArrayLike = 1e-4,
    q: int = 2,
    weights: ArrayLike | None = None,
    cov: ArrayLike | None = None,
) -> Array:
    r"""E[D / (|f(m)| + eps)] (Eq. 7), m the merged pre-activation; two sources.

    Arguments as for `expected_mloss`; eps, in the units of f, broadcasts with k and
    sigma. By quadrature, to 1e-8; to 1e-6 for activations with kinks that bend both
    ways under unequal weights, and for bare functions. ReLU's D is as large on average
    where m < 0, where the merged output is zero: that half contributes
    E[D] / (2 eps). Raises ValueError as `expected_mloss` does, for eps not in
    (0, inf), for more than two sources of positive weight, and for a sigma outside
    [1e-7, 1e8] unless the activation is homogeneous.
    """
    k, sigma, floor = with_floor(k, sigma, eps)
    nodes = nodes_under(activation, k, sigma, q=q, weights=weights, cov=cov)
    return ratio_moment(nodes.two_sources(), floor, 1).value


def estimated_normalized_mloss(
    activation: str | Activation | Elementwise,
    k: ArrayLike,
    sigma: ArrayLike,
    *,
    eps: ArrayLike = 1e-4,
    q: int = 2,
    weights: ArrayLike | None = None,
    cov: ArrayLike | None = None,
    rtol: float = 1e-3,
    seed: int = 0,
) -> Evaluation:
    """E[D / (|f(m)| + eps)] (Eq. 7) for any number of sources, with its error.

    For two sources the value of `normalized_mloss` and its stated accuracy. For more
    it is sampled until error <= rtol * value, where
    `error` is three standard errors of sixteen scramblings of a Sobol sequence.
    Raises ValueError as `normalized_mloss` does and for rtol outside (0, 1), and
    ArithmeticError where 2^17 points a scrambling do not suffice.
    """
    k, sigma, floor = with_floor(k, sigma, eps)
    nodes = nodes_under(activation, k, sigma, q=q, weights=weights, cov=cov)
    return ratio_moment(nodes, floor, 1, rtol=rtol, seed=seed)


def with_floor(
    k: ArrayLike, sigma: ArrayLike, eps: ArrayLike
) -> tuple[Array, Array, Array]:
    """Validate k, sigma and eps and broadcast them against each other."""
    k, sigma = scales(k, sigma)
    floor = positive("eps", eps)
    try:
        both = np.broadcast_arrays(k, sigma, floor)
    except ValueError:
        raise ValueError(
            f"eps must broadcast against k and sigma, got the shapes {floor.shape} "
            f"and {k.shape}"
        ) from None
    return both[0], both[1], both[2]


def ratio_moment(
    nodes: Nodes, floor: Array, power: int, *, rtol: float = 1e-3, seed: int = 0
) -> Evaluation:
    """E[(D / (|f(m)| + floor))^power], for a floor in the shape of the nodes."""
    pairs = zip(nodes, floor.flat, strict=True)
    ratios = (_ratio(node, float(eps), power) for node, eps in pairs)
    return node_means(nodes, ratios, rtol=rtol, seed=seed)


def _ratio(node: Node, floor: float, power: int) -> Integrand:
    def ratio(gap: Array, m: Array) -> Array:
        return (gap / (node.output(m) + floor)) ** power

    return Integrand(
        ratio,
        marks=marks_about_zeros(node, floor=floor),
        peaks=[zero * node.unit for zero in output_zeros(node.f)],
        width=floor,
    )

r"""Merging wide random networks: their Gaussian limit.

Parameters are independent with mean 0, by He's rule for any activation: weights of
variance (1 - b) / m_0 in the first layer and (1 - b) / (m_{l-1} E f(Z)^2) above,
biases of variance b. Source i adds sigma times a network of its own, so that one
parameter has the covariance P = 1 + sigma^2 M M' over the merge and the sources, with
the rows of M their coefficients: w for the merge, the i-th unit vector for source i.
As the widths grow, the pre-activations of a layer on one input of mean square 1 are
independent over its nodes and jointly Gaussian over the networks, with covariance

    K_1 = P,    K_{l+1} = P * ((1 - b) E[f(u) f(u)'] / E f(Z)^2 + b),    u ~ N(0, K_l).

K_{L+1} is the outputs'. A linear network has these K_l at every width.
docs/networks.md, section 2.
"""

from dataclasses import dataclass
from math import pi

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.activations import Activation, LeakyReLU
from theory.analysis import resolve
from theory.law import error_law, positive
from theory.signed import phi

Array = NDArray[np.float64]

_NODES = np.arange(-72, 73) / 8  # the trapezoid rule, for which e^(-x^2/2) is ideal
_WEIGHTS = phi(_NODES) / 8
_LARGEST = 6.0  # deviation, in which these nodes still have every bend to 1e-9


@dataclass(frozen=True)
class WideMerge:
    """What merging does to a wide network; the base's outputs have mean square 1.

    Two sources' pre-activations share a Gaussian part of variance `common` [layer] and
    have independent ones of variance `error` [layer]: the paper's law (Section 4) with
    a Gaussian base. `jensen_variance` [layer] is (1 - sum w^2) error. All by hidden
    layer, every source on its own activations. `gap` is the mean square of an output's
    gap.
    """

    common: Array
    error: Array
    jensen_variance: Array
    gap: float


def wide_merge(
    activation: str | Activation,
    sigma: float,
    *,
    depth: int,
    q: int = 2,
    weights: ArrayLike | None = None,
    bias_share: float = 0.0,
) -> WideMerge:
    """The limit of q merged networks with `depth` hidden layers, as widths grow.

    `weights` [q] default to 1/q. Exact for ReLU and Leaky ReLU, a quadrature for smooth
    activations; rounding leaves 1e-14 of the outputs' mean square in the gap's. Raises
    ValueError for other activations with kinks, pre-activations of a smooth one that
    grow too large for the quadrature (sigma above 1), fewer than two sources, a depth
    below 1 and a share outside [0, 1).
    """
    f = _with_known_products(resolve(activation))
    scale = float(positive("sigma", sigma))
    w = error_law(q, weights, None).weights
    if q < 2:
        raise ValueError(f"q must be at least 2 for there to be a merge, got {q}")
    if depth < 1:
        raise ValueError(f"depth counts hidden layers and must be >= 1, got {depth}")
    if not 0 <= bias_share < 1:
        raise ValueError(f"bias_share must be in [0, 1), got {bias_share}")
    coefficients = np.vstack([w, np.eye(q)])
    parameter = 1 + scale**2 * coefficients @ coefficients.T
    unit = _mean_products(f, np.ones((1, 1)))[0, 0]
    layers = [parameter]
    for _ in range(depth):
        inner = _mean_products(f, layers[-1]) / unit
        layers.append(parameter * ((1 - bias_share) * inner + bias_share))
    *hidden, outputs = layers
    common = np.array([kernel[1, 2] for kernel in hidden])
    error = np.array([kernel[1, 1] for kernel in hidden]) - common
    contrast = np.array([1.0, *-w])
    return WideMerge(
        common=common,
        error=error,
        jensen_variance=(1 - w @ w) * error,
        gap=float(contrast @ outputs @ contrast),
    )


def _mean_products(f: Activation, kernel: Array) -> Array:
    """E[f(u) f(u)'] [n, n] for u ~ N(0, kernel) [n, n]."""
    size = np.sqrt(np.diagonal(kernel))
    sizes = np.outer(size, size)
    cosine = np.clip(kernel / sizes, -1, 1)
    # As a difference of squares, so that nearly equal members keep their angle.
    sine = np.sqrt(np.clip((sizes - kernel) * (sizes + kernel), 0, None)) / sizes
    if isinstance(f, LeakyReLU):
        # f(u) = (1 + a)/2 u + (1 - a)/2 |u|, and E|u||v| is elementary.
        even, odd = (1 - f.negative_slope) / 2, (1 + f.negative_slope) / 2
        sizes_product = 2 / pi * sizes * (sine + cosine * np.arctan2(cosine, sine))
        value: Array = odd**2 * kernel + even**2 * sizes_product
        return value
    if size.max() > _LARGEST:
        raise ValueError(
            "sigma is too large: pre-activations grow to a deviation of "
            f"{size.max():.3g}, and a smooth activation takes {_LARGEST:g} here"
        )
    u = size[:, None] * _NODES  # [n, node]
    along = cosine[..., None, None] * _NODES[:, None]
    across = sine[..., None, None] * _NODES
    v = size[:, None, None] * (along + across)  # [n, n, node, node]
    inner = f(v) @ _WEIGHTS
    products: Array = np.einsum("ia,ija,a->ij", f(u), inner, _WEIGHTS)
    return products


def _with_known_products(f: Activation) -> Activation:
    if f.kinks and not isinstance(f, LeakyReLU):
        raise ValueError(
            f"activation {f.name!r} has kinks; the wide limit is known here for ReLU, "
            "Leaky ReLU and smooth activations"
        )
    return f

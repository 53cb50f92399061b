"""What theory expects the node M-Loss of a layer to be, from two moments of it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

import theory
from mloss.activations import Activation, identify, same_function
from mloss.weights import Weights, merging_weights

Array = NDArray[np.float64]
Formula = Callable[..., Array]

# The formulas need k > 0; below sigma / 10^6 its value no longer matters to a loss.
_SMALLEST_K = 1e-6


@dataclass(frozen=True)
class Moments:
    """What is known of a layer's base pre-activations x and the shifts d_i = h_i - x.

    Means over samples and tokens of x^2; of the Jensen variance
    sum_i w_i d_i^2 - (sum_i w_i d_i)^2; of the mean of d_i^2 over the q sources; and
    of d_i d_j over the nodes too. Drift counts as shift.
    """

    base_square: Float[Tensor, " node"]
    jensen_variance: Float[Tensor, " node"]
    shift_square: Float[Tensor, " node"]
    covariance: Float[Tensor, "q q"]


@dataclass(frozen=True)
class Prediction:
    """Expected node M-Loss [node] by theory; None where it has no formula.

    `value` is exact for the law of `predict` where `exact`, else an upper bound for
    it (the exact value of other activations takes too long for a network). `printed`
    is the approximation of the paper's section 4, k outside the root.
    """

    value: Float[Tensor, " node"] | None
    exact: bool
    printed: Float[Tensor, " node"] | None


def predict(
    activation: Activation, moments: Moments, *, weights: Weights = None
) -> Prediction:
    """Predict node M-Loss from a uniform base and Gaussian shifts of the sources.

    The base is taken as U(-k, k) with k = sqrt(3 mean x^2). The sources' correlation
    is that of the layer as a whole, and sigma gives each node its own Jensen
    variance: on that alone the loss depends as the shifts shrink. A node whose
    sources move alike has no loss. The paper's formula knows two independent sources
    of one sigma; here sigma is the root mean square shift of the q sources.
    """
    known = _in_theory(activation)
    if known is None:
        return Prediction(value=None, exact=False, printed=None)
    q = len(moments.covariance)
    w = merging_weights(weights, q=q).numpy()
    half_width = np.sqrt(3 * moments.base_square.cpu().numpy())
    cov = _unit_covariance(moments.covariance.cpu().numpy())
    law: dict[str, Any] = {"q": q, "weights": w / w.sum(), "cov": cov}
    variance = moments.jensen_variance.cpu().numpy()
    sigma = np.sqrt(variance / max(_jensen_variance(cov, w), np.finfo(float).tiny))
    exact = _fast(known) and _defined(theory.expected_mloss, known, **law)
    formula = theory.expected_mloss if exact else theory.mloss_bound
    value = _at_nodes(partial(formula, known, **law), half_width, sigma)
    shift = np.sqrt(moments.shift_square.cpu().numpy())
    return Prediction(value, exact, _printed(known, half_width, shift))


def _printed(
    activation: str | theory.Activation, half_width: Array, sigma: Array
) -> Tensor | None:
    if not _defined(theory.paper_approximation, activation):
        return None
    return _at_nodes(partial(theory.paper_approximation, activation), half_width, sigma)


def _in_theory(activation: Activation) -> str | theory.Activation | None:
    """Match the activation to what theory knows: a name, or Leaky ReLU at any slope."""
    if name := identify(activation):
        return name
    slope = -activation(torch.tensor([-1.0], dtype=torch.float64)).item()
    leaky = partial(functional.leaky_relu, negative_slope=slope)
    return theory.LeakyReLU(slope) if same_function(leaky, activation) else None


def _fast(activation: str | theory.Activation) -> bool:
    """Whether theory's exact value can be had at every node of a network.

    Leaky ReLU's is a closed form and GELU's a quadrature of its own; the general
    quadrature takes tens of milliseconds a node.
    """
    leaky = isinstance(activation, theory.LeakyReLU)
    return leaky or activation in ("relu", "leaky_relu", "prelu", "gelu", "identity")


def _defined(formula: Formula, activation: str | theory.Activation, **law: Any) -> bool:
    """Whether a formula covers this activation under this law, by trying it once."""
    try:
        formula(activation, 1.0, 1.0, **law)
    except ValueError:
        return False
    return True


def _at_nodes(formula: Formula, half_width: Array, sigma: Array) -> Tensor:
    """Values of a formula of (k, sigma) where sigma > 0, and 0 elsewhere."""
    value, moving = np.zeros_like(sigma), sigma > 0
    k = np.maximum(half_width, _SMALLEST_K * sigma)
    if moving.any():
        value[moving] = formula(k[moving], sigma[moving])
    return torch.from_numpy(value)


def _jensen_variance(cov: Array, weights: Array) -> float:
    """V = sum_i w_i C_ii - w'Cw, as a mean of C_ii + C_jj - 2 C_ij."""
    own = np.diagonal(cov)
    apart = own[:, None] + own[None, :] - 2 * cov
    return max(float(weights @ apart @ weights) / 2, 0.0)


def _unit_covariance(cov: Array) -> Array:
    """Scale a covariance [q, q] to mean variance 1; sources at rest count as apart."""
    scale = np.trace(cov) / len(cov)
    return cov / scale if scale > 0 else np.eye(len(cov))

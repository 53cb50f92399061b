"""The density form of the prediction: half the mean of |f''| times Jensen variance."""

import torch
from jaxtyping import Float
from scipy.special import ndtri
from torch import Tensor

from mloss.activations import Activation

# Points that stand for a normal density: the midpoints of equal shares of it.
_POINTS = 256


def density_prediction(
    activation: Activation,
    base: Float[Tensor, "token node"],
    jensen_variance: Float[Tensor, " node"],
) -> Float[Tensor, " node"]:
    r"""(1/2) \int |f''(x)| p(x) dx V for each node, p the density of its base values.

    `base` is a sample of the node's pre-activations. f'' is the second difference of f
    at steps of b, which for a kink amounts to a kernel estimate of p there; b is the
    root of V, or Silverman's bandwidth of the sample where that is wider. The law
    holds as the shifts shrink. Source: docs/law.md.
    """
    base, variance = base.double(), jensen_variance.double()
    silverman = 1.06 * base.std(dim=0, correction=0) * len(base) ** -0.2
    step = torch.maximum(variance.sqrt(), silverman)
    still = step == 0
    step = torch.where(still, torch.ones_like(step), step)
    bend = activation(base + step) + activation(base - step) - 2 * activation(base)
    return bend.abs().mean(dim=0) / step.square() * variance / 2


def normal_points(
    mean: Float[Tensor, " node"], variance: Float[Tensor, " node"]
) -> Float[Tensor, "point node"]:
    """Equally likely values of N(mean, variance), to stand for a sample of a node."""
    shares = (torch.arange(_POINTS, dtype=torch.float64) + 0.5) / _POINTS
    z = torch.from_numpy(ndtri(shares.numpy())).to(mean.device)
    return mean + variance.sqrt() * z[:, None]

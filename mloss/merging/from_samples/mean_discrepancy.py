"""The mean signed discrepancy of a site's nodes: what of M-Loss is a bias."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mloss.activations import Activation
from mloss.data_free import Assumed
from mloss.definitions import both_sides
from mloss.density import normal_points
from mloss.pre_activations import SiteLayers
from mloss.running_mean import RunningMean, token_means
from mloss.weights import weighted_sum

# What enters a site's layer in one batch, and where that batch has tokens.
Entering = tuple[Tensor, Bool[Tensor, "sample position"] | None]


def measured_discrepancy(
    layers: Sequence[SiteLayers],
    entering: Iterable[Entering],
    *,
    weights: Float[Tensor, " q"],
) -> Float[Tensor, " node"]:
    """Mean of D = f(sum_i w_i h_i) - sum_i w_i f(h_i), Eq. 4 without its bars.

    `layers` are those of one site in the q sources, on one shared input. The mean is
    over the tokens of a sample, then over samples; for a gated pair D is
    f(sum_i w_i h_i) sum_i w_i up_i - sum_i w_i f(h_i) up_i. In float64.
    """
    mean = RunningMean()
    for x, tokens in entering:
        each = [layer(x) for layer in layers]
        h = torch.stack([reading.h for reading in each]).double()
        up = [reading.up.double() for reading in each if reading.up is not None]
        merged, ensembled = both_sides(
            h,
            layers[0].site.activation,
            mean=weighted_sum(weights, h),
            weights=weights,
            up=torch.stack(up) if up else None,
        )
        mean.add(token_means(merged - ensembled, tokens))
    return mean.mean


def assumed_discrepancy(
    activation: Activation, assumed: Assumed
) -> Float[Tensor, " node"]:
    r"""E f(x) - E f(x + e) for x ~ N(mu, v), e ~ N(0, V): E[D] without any sample.

    mu, v and V are what the weights alone imply (`mloss.data_free`). Of independent
    errors as of the merge and the sources, V is what is between their variances. As
    V -> 0 it is -V/2 E[f''(x)], the law of docs/law.md with its sign: negative at
    every node of a convex f, and for GELU where mu^2 < (1 + v)(2 + v).
    """
    before = normal_points(assumed.mean, assumed.variance)
    after = normal_points(assumed.mean, assumed.variance + assumed.jensen_variance)
    return activation(before).mean(dim=0) - activation(after).mean(dim=0)

"""What is known of a site without any sample: from weights and a norm's gains."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mloss.density import density_prediction, normal_points
from mloss.sites import Site
from mloss.states import State
from mloss.weights import weighted_sum

# Weights of a model at a time: what a CPU's cache holds.
_CACHED = 2**15


@dataclass(frozen=True)
class Assumed:
    """Mean and variance of a layer's base pre-activations, and the shifts' variance."""

    mean: Float[Tensor, " node"]
    variance: Float[Tensor, " node"]
    jensen_variance: Float[Tensor, " node"]


def assumed_moments(
    site: Site, base: State, sources: Sequence[State], *, weights: Tensor
) -> Assumed | None:
    r"""Moments of a linear layer fed by a normalisation, for a standardised input.

    The input is gain * z + offset with the base's gain and offset, and z has mean
    zero, variance one and no correlation between its entries, as LayerNorm and
    RMSNorm make it on average. Then h has the mean W offset + b and the variance
    sum_j (W_j gain_j)^2, and so for the shifts. None where no normalisation feeds the
    layer, so that the size of its input is not known.
    """
    if site.fed_by is None or site.norm is not None:
        return None
    gain = base.get(f"{site.fed_by}.weight")
    if gain is None:
        return None
    gain = gain.double()
    offset = base.get(f"{site.fed_by}.bias", torch.zeros_like(gain)).double()
    layers = [_Layer.of(state, site.layer) for state in (base, *sources)]
    nodes = max(1, _CACHED // len(gain))
    parts = [
        _assumed(
            [
                layer.at(slice(start, start + nodes)).response(gain, offset)
                for layer in layers
            ],
            weights=weights,
        )
        for start in range(0, len(layers[0].weight), nodes)
    ]
    return Assumed(
        torch.cat([part.mean for part in parts]),
        torch.cat([part.variance for part in parts]),
        torch.cat([part.jensen_variance for part in parts]),
    )


def predicted_without_data(
    site: Site, base: State, sources: Sequence[State], *, weights: Tensor
) -> Float[Tensor, " node"] | None:
    """Density prediction of a site for the moments that its weights alone imply."""
    if site.up is not None:
        return None
    assumed = assumed_moments(site, base, sources, weights=weights)
    if assumed is None:
        return None
    return density_prediction(
        site.activation,
        normal_points(assumed.mean, assumed.variance),
        assumed.jensen_variance,
    ).cpu()


@dataclass(frozen=True)
class _Response:
    """mean + spread z of every node, for z uncorrelated and of variance one."""

    mean: Float[Tensor, " node"]
    spread: Float[Tensor, "node feature"]

    def __sub__(self, other: "_Response") -> "_Response":
        return _Response(self.mean - other.mean, self.spread - other.spread)

    @property
    def second_moment(self) -> Float[Tensor, " node"]:
        """Mean square of every node."""
        return self.mean.square() + self.spread.square().sum(dim=1)


@dataclass(frozen=True)
class _Layer:
    """Parameters of a linear layer, or of some of its nodes."""

    weight: Float[Tensor, "node feature"]
    bias: Float[Tensor, " node"]

    @classmethod
    def of(cls, state: State, name: str) -> "_Layer":
        weight = state[f"{name}.weight"]
        bias = state.get(f"{name}.bias")
        return cls(weight, weight.new_zeros(len(weight)) if bias is None else bias)

    def at(self, nodes: slice) -> "_Layer":
        return _Layer(self.weight[nodes], self.bias[nodes])

    def response(self, gain: Tensor, offset: Tensor) -> _Response:
        weight = self.weight.double()
        return _Response(weight @ offset + self.bias.double(), weight * gain)


def _assumed(responses: Sequence[_Response], *, weights: Tensor) -> Assumed:
    """Moments of some nodes from the responses of the base and of the sources."""
    own, *each = responses
    shifts = [response - own for response in each]
    mean_shift = _Response(
        weighted_sum(weights, (shift.mean for shift in shifts)),
        weighted_sum(weights, (shift.spread for shift in shifts)),
    )
    square = weighted_sum(weights, (shift.second_moment for shift in shifts))
    return Assumed(
        own.mean,
        own.spread.square().sum(dim=1),
        (square - mean_shift.second_moment).clamp(min=0),
    )

"""What is known of a site without any sample: from weights and a norm's gains."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mloss.sites import Site
from mloss.states import State
from mloss.weights import weighted_sum


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
    own, *each = (
        _Response.of(state, site.layer, gain, offset) for state in (base, *sources)
    )
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


@dataclass(frozen=True)
class _Response:
    """mean + spread z of every node, for z uncorrelated and of variance one."""

    mean: Float[Tensor, " node"]
    spread: Float[Tensor, "node feature"]

    @classmethod
    def of(cls, state: State, layer: str, gain: Tensor, offset: Tensor) -> "_Response":
        weight = state[f"{layer}.weight"].double()
        bias = state.get(f"{layer}.bias")
        mean = weight @ offset if bias is None else weight @ offset + bias.double()
        return cls(mean, weight * gain)

    def __sub__(self, other: "_Response") -> "_Response":
        return _Response(self.mean - other.mean, self.spread - other.spread)

    @property
    def second_moment(self) -> Float[Tensor, " node"]:
        """Mean square of every node."""
        return self.mean.square() + self.spread.square().sum(dim=1)

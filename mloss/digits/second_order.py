"""The merged-vs-ensemble gap to second order in the models' differences."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.inference import evaluating, forward
from mloss.merging import average
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights, weighted_sum

# Steps and weights: sum of w (f(step) - f(0)) / h^2 is f'' up to h^4 f^(6) / 90.
_STENCIL: Mapping[int, float] = {-2: -1 / 12, -1: 4 / 3, 1: 4 / 3, 2: -1 / 12}
_STEP = 2.0**-8


def second_order_gap(
    model: nn.Module,
    sources: Sequence[State],
    *,
    data: Float[Tensor, "sample ..."],
    weights: Weights = None,
) -> Float[Tensor, "sample ..."]:
    r"""Predict f(theta_bar; x) - sum_i w_i f(theta_i; x), theta_bar the average.

    .. math:: -\tfrac12 \sum_i w_i\, D^2 f(\bar\theta; x)[\delta_i, \delta_i]
        = -\tfrac12 \sum_{i<j} w_i w_j\, D^2 f(\bar\theta; x)[d_{ij}, d_{ij}]

    with delta_i = theta_i - theta_bar and d_ij = theta_i - theta_j. The second form is
    the one computed, in the architecture `model`: one curvature for two sources, and
    q(q-1)/2 for q. The error is of third order in d, of fourth for two equal weights;
    f of degree two in the parameters has none. Source: docs/theory.md, section 6.

    A curvature is a difference of five outputs at steps of d/256, within 1e-6 of itself
    in float64; pass float64 models and data. Nested forward-mode differentiation
    would be exact, but torch's is wrong through layer_norm (pytorch issue 196700).
    Raises ValueError for fewer than two sources and models that do not match.
    """
    if len(sources) < 2:
        raise ValueError(f"sources must hold at least two models, got {len(sources)}")
    first, states = matched(sources[0], sources)
    w = merging_weights(weights, q=len(states))
    centre = average(first, states, weights=w)
    pairs = list(combinations(range(len(states)), 2))
    products = torch.stack([w[i] * w[j] for i, j in pairs])
    with evaluating(model):
        curvatures = (
            _curvature(model, centre, _difference(states[i], states[j]), data)
            for i, j in pairs
        )
        return -weighted_sum(products, curvatures) / 2


def _difference(first: State, second: State) -> State:
    return {key: first[key] - second[key] for key in first}


def _curvature(
    model: nn.Module, centre: State, direction: State, data: Tensor
) -> Float[Tensor, "sample ..."]:
    """D^2 f(centre)[d, d] along the direction d."""
    here = forward(model, centre, data)

    def change(steps: int) -> Tensor:
        length = steps * _STEP
        moved = {key: v + length * direction[key] for key, v in centre.items()}
        return forward(model, moved, data) - here

    weights = torch.tensor(list(_STENCIL.values()), dtype=torch.float64)
    return weighted_sum(weights, map(change, _STENCIL)) / _STEP**2

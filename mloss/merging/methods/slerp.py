"""SLERP: two models interpolated along the arc between them, tensor by tensor."""

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.merging.entries import Entrywise
from mloss.merging.registry import merging_method
from mloss.one_thread import one_thread
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights, weighted_sum


@merging_method(source="Shoemake 1985, Animating rotation with quaternion curves")
def slerp(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    weights: Weights = None,
    threshold: float = 0.9995,
) -> State:
    """sin(w_1 angle)/sin(angle) theta_1 + sin(w_2 angle)/sin(angle) theta_2.

    Each tensor is one vector and has its own angle between the two sources. Where the
    cosine of the angle is at least `threshold` in size, or a tensor is all zeros and
    has no direction, the straight line w_1 theta_1 + w_2 theta_2 takes the place of the
    arc; models tuned from one base are mostly that near to each other. The base only
    says what the sources must look like: to go from it to a tuned model, as is often
    done, give it as the first source too.

    The convention is mergekit's, with t = w_2, except for zeros (mergekit takes them to
    stand at 90 degrees to everything) and for sums in float64. Raises ValueError unless
    there are two sources and 0 <= threshold <= 1, and for models or weights that do not
    fit.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be a cosine in [0, 1], got {threshold}")
    start, states = matched(base, sources)
    if len(states) != 2:
        raise ValueError(f"slerp goes between two sources, got {len(states)}")
    w = merging_weights(weights, q=2)

    def merged(key: str) -> Tensor:
        ends = [state[key].double() for state in states]
        cosine = _cosine(*ends)
        shares = w if abs(cosine) >= threshold else _on_arc(w, math.acos(cosine))
        return weighted_sum(shares, ends).to(start[key].dtype)

    return Entrywise(start, merged)


def _cosine(a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"]) -> float:
    """Cosine of the angle between two tensors as vectors; 1 where one is all zeros."""
    with one_thread():
        product = torch.dot(a.flatten(), b.flatten()).item()
        lengths = torch.stack([a.norm(), b.norm()]).prod().item()
    return max(-1.0, min(1.0, product / lengths)) if lengths > 0 else 1.0


def _on_arc(weights: Float[Tensor, " q"], angle: float) -> Float[Tensor, " q"]:
    return torch.sin(weights * angle) / math.sin(angle)

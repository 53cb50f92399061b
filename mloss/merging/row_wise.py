"""TIES with a budget for each node of chosen layers, as Algorithm 1 trims."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.merging.elect import Combine, combine_elected
from mloss.merging.keep_rates import check_rates, keep_rates
from mloss.merging.methods.ties import ties
from mloss.merging.task_vectors import moved, task_vectors
from mloss.merging.trim import trim_rows
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights

# The running merge and a layer's name in; one score for each node of it out.
Scores = Callable[[State, str], Float[Tensor, " node"]]


def row_wise_ties(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    layers: Mapping[str, Sequence[str]],
    scores: Scores,
    weights: Weights = None,
    density: float = 0.2,
    spread: float = 0.1,
    combine: Combine = "weighted_sum",
) -> dict[str, Tensor]:
    """Algorithm 1 of the paper for any scores of the nodes.

    `layers` names, in forward order, the layers that are trimmed node by node, each
    with the keys of its parameters (first axis: the node). Everything else is merged
    first by `ties` with one budget for each tensor. Then, layer by layer,
    `scores(running merge, layer)` ranks the nodes; `keep_rates` turns ranks into the
    fraction of its parameters, weight row and bias together, that each node keeps; a
    sign is elected and the sources combined. With "weighted_sum" the step is line
    22's sum_i w_i ElectPruned(T_i). M-TIES scores by M-Loss (`m_ties`); random or
    reversed scores are its controls.

    Raises ValueError as `ties` and `keep_rates` do, and where a parameter of these
    layers is tied to another: one tensor would get two merged values.
    """
    check_rates(density, spread=spread)
    start, states = matched(base, sources)
    w = merging_weights(weights, q=len(states))
    by_node = {key for keys in layers.values() for key in keys}
    _check_untied(start, by_node)
    rest, *others = [_without(state, by_node) for state in (start, *states)]
    merged = dict(start)
    merged |= ties(rest, others, weights=w, density=density, combine=combine)
    for layer, keys in layers.items():
        rates = keep_rates(scores(merged, layer), density=density, spread=spread)
        vectors = [task_vectors(start, states, key) for key in keys]
        trimmed = torch.stack([trim_rows(r, rates) for r in _node_rows(vectors)])
        step = combine_elected(trimmed, w, combine=combine)
        parts = torch.split(step, [v[0, 0].numel() for v in vectors], dim=-1)
        for key, part in zip(keys, parts, strict=True):
            merged[key] = moved(start[key], part.reshape(start[key].shape))
    return merged


def _check_untied(state: State, by_node: Container[str]) -> None:
    """Raise ValueError where a key of `by_node` shares its tensor with another key."""
    first_at: dict[tuple[int, torch.Size], str] = {}
    for key, value in state.items():
        first = first_at.setdefault((value.data_ptr(), value.shape), key)
        if first != key and (first in by_node or key in by_node):
            raise ValueError(
                f"{first!r} and {key!r} are tied to one tensor: "
                "it cannot be merged node by node"
            )


def _without(state: State, keys: Container[str]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key not in keys}


def _node_rows(vectors: Sequence[Tensor]) -> Float[Tensor, "q node entry"]:
    """Each node's linearly correlated parameters side by side: its row, its bias."""
    return torch.cat([vector.reshape(*vector.shape[:2], -1) for vector in vectors], -1)

"""Model Stock: as far towards the mean as the sources agree (Jang et al. 2024)."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.merging.registry import merging_method
from mloss.merging.task_vectors import moved_by_entry, task_vectors
from mloss.one_thread import one_thread
from mloss.states import State, matched, mergeable
from mloss.weights import Weights, merging_weights, weighted_sum

Per = Literal["tensor", "layer", "row"]


@merging_method(source="Jang et al. 2024 (arXiv 2403.19522)")
def model_stock(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    weights: Weights = None,
    per: Per = "tensor",
) -> State:
    """Theta + t sum_i w_i (theta_i - theta), with t from the angles of task vectors.

    With c the mean cosine of the angles between pairs of task vectors,
    t = n c / (1 + (n - 1) c) for n sources: the point on the line from the base to the
    mean that is nearest to what the sources scatter around. At other weights a pair
    counts by w_i w_j and n is 1 / sum_i w_i^2, which the same derivation gives. One t
    for each tensor, for each layer (all parameters of one module, weight and bias
    together), or for each row of a tensor's first axis (a vector is one row).

    Sources that agree are returned (t = 1). Where c is not positive they share no
    direction and t is 0, while mergekit and FusionBench go backwards, without bound as
    c falls to -1 / (n - 1). Both are the same as here otherwise, but that mergekit
    takes cosines of steps shorter than 1e-3 for smaller than they are, and FusionBench
    the mean of angles in place of cosines. mergekit's `filter_wise` is "row", except
    for tensors of more than two axes, where its rows lie along the last.

    Raises ValueError for fewer than two sources that have weight, another `per`, and
    models or weights that do not fit.
    """
    if per not in ("tensor", "layer", "row"):
        raise ValueError(f"per must be 'tensor', 'layer' or 'row', got {per!r}")
    start, states = matched(base, sources)
    w = merging_weights(weights, q=len(states))
    if (counted := int((w > 0).sum())) < 2:
        raise ValueError(
            f"model_stock compares two sources or more that have weight, got {counted}"
        )
    siblings = _layers(start) if per == "layer" else {}

    def step(key: str, vectors: Float[Tensor, "q *shape"]) -> Float[Tensor, "*shape"]:
        mean = weighted_sum(w, vectors)
        rows = max(1, len(mean)) if per == "row" and mean.ndim > 1 else 1
        parts = [task_vectors(start, states, other) for other in siblings.get(key, ())]
        one_angle = [_in_rows(part, rows) for part in (vectors, *parts)]
        t = agreement(torch.cat(one_angle, dim=-1), w)
        return (t[:, None] * _in_rows(mean[None], rows)[0]).reshape(mean.shape)

    return moved_by_entry(start, states, combine=step)


def agreement(
    vectors: Float[Tensor, "q row value"], weights: Float[Tensor, " q"]
) -> Float[Tensor, " row"]:
    """The t of each row, n c / (1 + (n - 1) c), or 0 where c is not positive.

    sum_{i<j} w_i w_j cos_ij is had from the length of the sum of all w_i u_i, the u_i
    of length 1. A vector of zeros has cosine 0 with every other.
    """
    with one_thread():
        lengths = torch.linalg.vector_norm(vectors, dim=-1)
        shares = weights.to(vectors.device)[:, None] * (lengths > 0)
        scaled = shares / lengths.where(lengths > 0, 1)
        sums = torch.einsum("qr,qrv->rv", scaled, vectors)
        pairs = sums.square().sum(dim=-1) - shares.square().sum(dim=0)
    concentration = weights.square().sum().item()
    cosine: Tensor = (pairs / (1 - concentration)).clamp(0, 1)
    return cosine / (cosine + (1 - cosine) * concentration)


def _layers(state: State) -> dict[str, list[str]]:
    """For each key the others of its module, those that can be merged."""
    modules = defaultdict(list)
    for key, value in state.items():
        if mergeable(value):
            modules[key.rpartition(".")[0]].append(key)
    return {
        key: [other for other in keys if other != key]
        for keys in modules.values()
        for key in keys
    }


def _in_rows(
    vectors: Float[Tensor, "q *shape"], rows: int
) -> Float[Tensor, "q row value"]:
    return vectors.reshape(len(vectors), rows, vectors[0].numel() // rows)

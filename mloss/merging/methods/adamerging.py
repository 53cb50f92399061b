"""AdaMerging: coefficients of task vectors learned by entropy (Yang et al. 2024)."""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import nn

from mloss.batches import Data
from mloss.inference import check_fits, evaluating
from mloss.merging.entries import Entrywise
from mloss.merging.from_samples.least_entropy import Combination, least_entropy
from mloss.merging.from_samples.task_data import Heads, own_tasks
from mloss.merging.registry import merging_method
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights

Granularity = Literal["layer", "task"]


@merging_method(
    source="Yang et al. 2024 (arXiv 2310.02575)", needs=("model", "task_data")
)
def adamerging(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    model: nn.Module,
    task_data: Sequence[Data],
    heads: Heads = None,
    weights: Weights = None,
    granularity: Granularity = "layer",
    steps: int = 500,
    learning_rate: float = 1e-3,
    initial: float = 0.3,
) -> State:
    r"""theta + sum_i lambda_i (theta_i - theta), lambda learned without labels.

    Adam minimises sum_i q w_i H_i, where H_i is the mean entropy of the merged model's
    class probabilities on samples of task i: each step on one batch of every task, in
    turn. There is one lambda for each source and parameter tensor ("layer": what the
    authors' code calls a layer) or for each source ("task"), all `initial` at first and
    held in [0, 1]. The defaults are the paper's, whose code draws two batches of 16
    afresh for each task and step. What is no parameter is averaged.

    `heads` read class logits off the outputs, one for each source. Without them the
    model must call its outputs logits, as classifiers of `transformers` do; where it
    returns logits under no name, a head is `nn.Identity()`.

    Holds all task vectors, the base, two merges and one batch's backward pass, in the
    base's precision. The only method here that is trained. One source is not returned:
    the merge keeps between none and all of its task vector.

    Raises ValueError where models, data or heads do not fit, for outputs that are no
    logits, and for options outside their range.
    """
    _check(granularity, steps=steps, learning_rate=learning_rate, initial=initial)
    start, states = matched(base, sources)
    check_fits(model, start)
    q = len(states)
    w = merging_weights(weights, q=q)
    tasks = own_tasks(task_data, heads, q=q)
    combination = Combination.of(model, start, states, weights=w)
    rows = len(combination.vectors) if granularity == "layer" else 1
    with evaluating(model):
        coefficients = least_entropy(
            model,
            combination,
            tasks,
            initial=torch.full((rows, q), initial, dtype=torch.float64),
            shares=(q * w).tolist(),
            steps=steps,
            learning_rate=learning_rate,
        )
        learned = combination.whole(combination.at(coefficients))
    # Copies, so that tied parameters do not share a tensor with each other.
    return Entrywise(start, lambda key: learned[key].clone())


def _check(
    granularity: str, *, steps: int, learning_rate: float, initial: float
) -> None:
    if granularity not in ("layer", "task"):
        raise ValueError(f"granularity must be 'layer' or 'task', got {granularity!r}")
    if steps < 0:
        raise ValueError(f"steps must not be negative, got {steps}")
    if not 0 < learning_rate < float("inf"):
        raise ValueError(
            f"learning_rate must be positive and finite, got {learning_rate}"
        )
    if not 0 <= initial <= 1:
        raise ValueError(f"initial must be in [0, 1], got {initial}")

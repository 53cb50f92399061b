"""How far the outputs of a merge are from the ensemble of its sources."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.batches import Batch, Data, batches
from mloss.given_models import Model, runnable
from mloss.inference import check_fits, evaluating
from mloss.outputs import check_finite, flat_output
from mloss.running_mean import RunningMean
from mloss.states import State, state_of
from mloss.weights import Weights, merging_weights, weighted_sum


@dataclass(frozen=True)
class Gap:
    """Mean L2 distance between merged and ensemble output, over samples.

    `stderr` is the standard error of `mean` (infinite for one sample); `relative` is
    `mean` over the mean norm of the ensemble's output (zero where both vanish, and
    infinite where only the ensemble does); `samples` counts the inputs.
    """

    mean: float
    stderr: float
    relative: float
    samples: int


def gap(
    merged: Model,
    sources: Iterable[Model],
    data: Data,
    *,
    model: nn.Module | None = None,
    weights: Weights = None,
) -> Gap:
    """Mean over samples of ||f(merged; x) - sum_i w_i f(theta_i; x)||, in one pass.

    `data` is one batch or several, tensors or keyword arguments; what is padded in
    them does not count. Models are modules, state dicts, or paths and hub ids. All run
    in the architecture `model`, by default that of the first module given or of a
    checkpoint's configuration. Adapters have no base to go on here: open them with
    `mloss.checkpoints.as_source`. Distances are computed in float64. Raises ValueError
    for data that are empty, models that do not fit, and outputs that are not finite.
    """
    given = runnable(merged, sources, model=model, base_is="merged")
    run_in = given.model
    states = [state_of(m) for m in (given.base, *given.sources)]
    for state in states:
        check_fits(run_in, state)
    _check_dtypes(states)
    w = merging_weights(weights, q=len(given.sources))
    distance, length = RunningMean(), RunningMean()
    with evaluating(run_in):
        for batch in batches(data):
            ours, *each = (_row(run_in, state, batch) for state in states)
            ensemble = weighted_sum(w, each)
            distance.add(torch.linalg.vector_norm(ours - ensemble, dim=1))
            length.add(torch.linalg.vector_norm(ensemble, dim=1))
    return gap_of(distance, length)


def gap_of(distance: RunningMean, length: RunningMean) -> Gap:
    """Give the gap of samples' distances and of the lengths of the ensemble's rows."""
    mean, norm = distance.mean.item(), length.mean.item()
    stderr = distance.stderr.item()
    return Gap(mean, stderr, _ratio(mean, norm), samples=distance.count)


def _check_dtypes(states: Sequence[State]) -> None:
    """Raise ValueError where a source's entry has another dtype than the merge's."""
    merged, *sources = states
    for index, source in enumerate(sources):
        for key, value in merged.items():
            if source[key].dtype != value.dtype:
                raise ValueError(
                    f"{key!r} has dtype {source[key].dtype} in source {index}, "
                    f"{value.dtype} in merged"
                )


def _row(model: nn.Module, state: State, batch: Batch) -> Float[Tensor, "sample entry"]:
    output = flat_output(model, state, batch)
    check_finite(output)
    return output.double()


def _ratio(distance: float, size: float) -> float:
    if size > 0:
        return distance / size
    return 0.0 if distance == 0 else math.inf

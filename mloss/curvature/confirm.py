"""Measured gaps of the merges that a pool foretells, each source run only once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torch.linalg import vector_norm

from mloss.batches import Batch, Data, batches
from mloss.curvature.subsets import Candidate
from mloss.inference import architecture, check_fits, evaluating
from mloss.merging.methods.average import average
from mloss.outputs import check_finite, flat_output
from mloss.running_mean import RunningMean
from mloss.states import State, matched
from mloss.weights import merging_weights, weighted_sum


@dataclass(frozen=True)
class Confirmed:
    """A candidate and its measured gap, a mean over samples with its standard error."""

    candidate: Candidate
    gap: float
    stderr: float


def confirm(
    model: nn.Module,
    sources: Sequence[nn.Module | State],
    candidates: Iterable[Candidate],
    *,
    data: Data,
) -> tuple[Confirmed, ...]:
    """Measure each candidate's gap, smallest first, with one merged pass for each.

    `sources` are the pool's, in its order. The outputs of those that take part are
    held in memory. Raises ValueError as `mloss.gap` does.
    """
    run_in = architecture(model, sources)
    first, states = matched(sources[0], sources)
    check_fits(run_in, first)
    inputs, chosen = list(batches(data)), list(candidates)
    with evaluating(run_in):
        outputs = {
            index: [_output(run_in, states[index], batch) for batch in inputs]
            for index in sorted({i for c in chosen for i in c.members})
        }
        found = [
            _measured(
                run_in,
                candidate,
                states=[states[i] for i in candidate.members],
                outputs=[outputs[i] for i in candidate.members],
                inputs=inputs,
            )
            for candidate in chosen
        ]
    return tuple(sorted(found, key=lambda confirmed: confirmed.gap))


def _measured(
    model: nn.Module,
    candidate: Candidate,
    *,
    states: Sequence[State],
    outputs: Sequence[Sequence[Tensor]],
    inputs: Sequence[Batch],
) -> Confirmed:
    ensemble = merging_weights(candidate.ensemble, q=len(states))
    merged = average(states[0], states, weights=candidate.weights)
    distance = RunningMean()
    for batch, each in zip(inputs, zip(*outputs, strict=True), strict=True):
        apart = _output(model, merged, batch) - weighted_sum(ensemble, each)
        distance.add(vector_norm(apart, dim=1))
    return Confirmed(candidate, distance.mean.item(), distance.stderr.item())


def _output(
    model: nn.Module, state: State, batch: Batch
) -> Float[Tensor, "sample entry"]:
    output = flat_output(model, state, batch).double()
    check_finite(output)
    return output

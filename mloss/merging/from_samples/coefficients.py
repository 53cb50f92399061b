"""Coefficients of the task vectors in parts of a network, fitted to the ensemble."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.linalg import vector_norm

from mloss.batches import Batch
from mloss.curvature.groups import parameter_groups
from mloss.merging.from_samples.ridge import Sums
from mloss.merging.from_samples.tied import first_names
from mloss.merging.task_vectors import moved, moved_by_entry
from mloss.outputs import check_finite, flat_output
from mloss.states import State
from mloss.weights import weighted_sum

# Slopes are central differences a quarter to either side: exact where the output is of
# second degree in a coefficient, and far above rounding.
_STEP = 0.25
# In units of the mean over coefficients of their slopes' squares.
_DAMPINGS = (0.001, 0.01, 0.1, 1.0, 10.0)


Per = Literal["block", "tensor"]


@dataclass(frozen=True)
class Parts:
    """A base and its sources, and which part each floating-point key belongs to."""

    base: State
    sources: Sequence[State]
    part: Mapping[str, int]

    @classmethod
    def of(
        cls, model: nn.Module, base: State, sources: Sequence[State], *, per: Per
    ) -> "Parts":
        """The blocks of `mloss.curvature.parameter_groups`, or one part a tensor.

        A parameter with several names belongs where its first name does. Raises
        ValueError for another `per`.
        """
        if per not in ("block", "tensor"):
            raise ValueError(f"per must be 'block' or 'tensor', got {per!r}")
        named = {
            key: group.block if per == "block" else key
            for group in parameter_groups(model, sites=())
            for key in group.keys
        }
        named |= {key: named[first] for key, first in first_names(model).items()}
        order = {
            name: index for index, name in enumerate(dict.fromkeys(named.values()))
        }
        return cls(base, sources, {key: order[name] for key, name in named.items()})

    @property
    def count(self) -> int:
        """Number of parts."""
        return max(self.part.values()) + 1

    def merged(self, coefficients: Float[Tensor, "part q"]) -> State:
        """Theta + sum_li c_li tau_li, as a lazy state."""

        def step(key: str, vectors: Float[Tensor, "q *shape"]) -> Tensor:
            return weighted_sum(coefficients[self.part[key]], vectors)

        return moved_by_entry(self.base, self.sources, combine=step)

    def moved(self, state: State, part: int, source: int, *, by: float) -> State:
        """A state with `by` more of one source's task vector in one part."""
        theta = self.sources[source]

        def entry(key: str) -> Tensor:
            step = theta[key].double() - self.base[key].double()
            return moved(state[key], by * step)

        keys = [key for key, own in self.part.items() if own == part]
        return {**state, **{key: entry(key) for key in keys}}


def nearest(
    model: nn.Module,
    parts: Parts,
    *,
    fit: Sequence[Batch],
    held_out: Sequence[Batch],
    weights: Float[Tensor, " q"],
    rounds: int,
) -> Float[Tensor, "part q"]:
    """Coefficients of the merge that comes nearest to sum_i w_i f(theta_i; x).

    From c_li = w_i, `rounds` of damped Gauss-Newton steps on the samples of `fit`; of
    the dampings, and of going on or not, the mean distance on `held_out` decides. The
    model is to be in evaluation mode. Raises ValueError for outputs not finite.
    """
    aims = [_ensemble(model, parts.sources, batch, weights) for batch in fit]
    apart = [_ensemble(model, parts.sources, batch, weights) for batch in held_out]

    def distance(c: Float[Tensor, "part q"]) -> float:
        state = dict(parts.merged(c))
        norms = [
            vector_norm(_output(model, state, batch) - aim, dim=1)
            for batch, aim in zip(held_out, apart, strict=True)
        ]
        return torch.cat(norms).mean().item()

    best = weights.repeat(parts.count, 1)
    smallest = distance(best)
    for _ in range(rounds):
        sums = _slopes_and_lack(model, parts, best, fit, aims)
        steps = [sums.solved(damping).reshape(best.shape) for damping in _DAMPINGS]
        reached = [distance(best + step) for step in steps]
        if not min(reached) < smallest:
            break
        smallest = min(reached)
        best = best + steps[reached.index(smallest)]
    return best


def _slopes_and_lack(
    model: nn.Module,
    parts: Parts,
    coefficients: Float[Tensor, "part q"],
    inputs: Sequence[Batch],
    aims: Sequence[Tensor],
) -> Sums:
    """Sums over outputs for the regression of what is lacking on the slopes."""
    here = dict(parts.merged(coefficients))

    def of_batch(batch: Batch, aim: Tensor) -> Sums:
        def slope(part: int, source: int) -> Tensor:
            ahead, back = (
                _output(model, parts.moved(here, part, source, by=by), batch)
                for by in (_STEP, -_STEP)
            )
            return (ahead - back).flatten() / (2 * _STEP)

        every = [
            slope(part, source)
            for part in range(parts.count)
            for source in range(len(parts.sources))
        ]
        lack = aim - _output(model, here, batch)
        return Sums.of(torch.stack(every, dim=1), lack.reshape(-1, 1))

    return reduce(add, map(of_batch, inputs, aims))


def _ensemble(
    model: nn.Module, sources: Sequence[State], batch: Batch, weights: Tensor
) -> Float[Tensor, "sample entry"]:
    return weighted_sum(weights, (_output(model, state, batch) for state in sources))


def _output(
    model: nn.Module, state: State, batch: Batch
) -> Float[Tensor, "sample entry"]:
    output = flat_output(model, state, batch)
    check_finite(output)
    return output.double()

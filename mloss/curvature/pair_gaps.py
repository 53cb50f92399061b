"""Outputs of a pool's models and gaps of its pairs, each computed once and kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Literal

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mloss.batches import Batch
from mloss.curvature.second_derivative import second_derivative
from mloss.curvature.stored_arrays import Array, StoredArrays, digest
from mloss.inference import evaluating
from mloss.merging.methods.average import average
from mloss.outputs import check_finite, flat_output
from mloss.states import State, mergeable

PairMethod = Literal["measured", "forward", "differences"]
# Called with the number of finished pairs and that of all.
Progress = Callable[[int, int], None]
# A state with the digest of what it holds.
_Named = tuple[str, State]


@dataclass(frozen=True)
class PairGaps:
    """How the gap of a pair is computed, and where it is kept.

    It is that of the plain average from the ensemble: "measured",

        c_ij = f((theta_i + theta_j) / 2) - (f(theta_i) + f(theta_j)) / 2,

    with one forward pass, or to second order around `centre`, -1/8 D^2 f(centre)[d, d]
    with d = theta_i - theta_j, by a method of `second_derivative`. A gap is an array
    in float32, all outputs of a sample after those of the one before; an output is one
    in the model's precision, but no lower than that.
    """

    model: nn.Module
    data: Sequence[Batch]
    method: PairMethod
    centre: State
    stored: StoredArrays

    def of_all(
        self, states: Sequence[State], *, jobs: int, progress: Progress | None
    ) -> tuple[list[Array], list[Array]]:
        """Outputs of all models, and gaps of all pairs i < j, `jobs` at a time."""
        named = [(digest(state), state) for state in states]
        outputs = [self._output(each) for each in named]
        pairs = list(combinations(named, 2))
        finished = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(
            joblib.delayed(self._finish)(first, second) for first, second in pairs
        )
        for count, _ in enumerate(finished, start=1):
            if progress is not None:
                progress(count, len(pairs))
        return outputs, [self._pair(first, second) for first, second in pairs]

    def entries(self) -> NDArray[np.int64]:
        """How many outputs each sample has: batches may differ in length."""
        return self.stored.get("entries", self._count_entries).astype(np.int64)

    def _count_entries(self) -> Array:
        with evaluating(self.model):
            shapes = [flat_output(self.model, self.centre, b).shape for b in self.data]
        counts = [np.full(samples, entries) for samples, entries in shapes]
        return np.concatenate(counts).astype(np.float64)

    def _finish(self, first: _Named, second: _Named) -> None:
        """Leave the pair in the store: results need not travel between processes."""
        self._pair(first, second)

    def _pair(self, first: _Named, second: _Named) -> Array:
        name = "pair-" + "-".join(sorted([first[0], second[0]]))
        compute = self._measured if self.method == "measured" else self._second_order
        return self.stored.get(name, partial(compute, first, second))

    def _output(self, named: _Named) -> Array:
        name, state = named
        return self.stored.get(f"output-{name}", partial(self._run, state))

    def _run(self, state: State) -> Array:
        with evaluating(self.model):
            outputs = [flat_output(self.model, state, batch) for batch in self.data]
        together = torch.cat([output.flatten() for output in outputs])
        check_finite(together)
        return _array(together.to(torch.promote_types(together.dtype, torch.float32)))

    def _measured(self, first: _Named, second: _Named) -> Array:
        merged = average(first[1], [first[1], second[1]])
        ensemble = (self._output(first).astype(np.float64) + self._output(second)) / 2
        return (self._run(merged) - ensemble).astype(np.float32)

    def _second_order(self, first: _Named, second: _Named) -> Array:
        assert self.method != "measured", "that has a route of its own"
        start, end = first[1], second[1]
        apart = {k: end[k] - v for k, v in start.items() if mergeable(v)}
        moved = {key: value for key, value in apart.items() if value.any()}
        with evaluating(self.model):
            curvatures = [
                second_derivative(
                    self.model, self.centre, batch, first=moved, method=self.method
                )
                for batch in self.data
            ]
        return _array(torch.cat([c.flatten() for c in curvatures]).float() / -8)


def _array(values: Tensor) -> Array:
    array: Array = values.cpu().numpy()
    return array

"""One merge after another of the same models."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mloss.batches import Batch
from mloss.checkpoints import Checkpoint, in_model
from mloss.compare.candidates import Candidate
from mloss.compare.heads import Head
from mloss.given_models import Model, Runnable
from mloss.merging import METHODS, merged_lazily
from mloss.states import State, state_of
from mloss.weights import Weights


@dataclass(frozen=True, eq=False)
class Merger:
    """Models, and what methods may ask for beside them.

    `given` is what base and sources are run as (`mloss.given_models.runnable`).
    `samples` has the batches of each source's task, or of all tasks in one; `data` are
    inputs for methods that look at those of all tasks together. Random numbers start
    from `seed` in every merge.
    """

    base: nn.Module | State
    sources: Sequence[Model]
    given: Runnable
    samples: Sequence[Sequence[Batch]]
    data: Sequence[Batch]
    heads: Sequence[Head] | None = None
    weights: Weights = None
    seed: int = 0

    def lazily(self, candidate: Candidate) -> State:
        """The merge, under the base's names, entries computed as they are looked up.

        Raises ValueError as the method does.
        """
        return merged_lazily(
            self.base,
            self.sources,
            method=candidate.method,
            **self._given(candidate.method),
            **candidate.options,
        )

    def _given(self, method: str) -> dict[str, Any]:
        chosen = METHODS[method]
        given: dict[str, Any] = {"weights": self.weights}
        if chosen.draws:
            given["generator"] = torch.Generator().manual_seed(self.seed)
        if self.heads and "heads" in inspect.signature(chosen.lazily).parameters:
            given["heads"] = self.heads
        if "model" in chosen.needs:
            given["model"] = self.given.model
        if "data" in chosen.needs:
            given["data"] = self.data
        if "task_data" in chosen.needs:
            times = len(self.sources) if len(self.samples) == 1 else 1
            given["task_data"] = [*self.samples] * times
        return given

    def as_run(self, merged: State) -> State:
        """A merge under the model's names, rounded as it would be written."""
        stored = self.given.stored
        if stored is None:
            return merged
        entries = {
            name: replace(entry, read=partial(self._rounded, merged, name, entry.dtype))
            for name, entry in stored.entries.items()
        }
        return in_model(replace(stored, entries=entries), self.given.model)

    def _rounded(self, merged: State, name: str, run_in: torch.dtype) -> Tensor:
        base = self.base
        known = base.entries if isinstance(base, Checkpoint) else state_of(base)
        return merged[name].to(known[name].dtype).to(run_in)

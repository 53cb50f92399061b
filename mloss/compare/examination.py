"""What merges are asked: each task's samples, and what the sources say of them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.batches import Batch
from mloss.compare.agreement import Agreement, agreement_of_rows, rows
from mloss.compare.heads import Head
from mloss.compare.pooling import Pooling, pooled
from mloss.inference import evaluating
from mloss.progress import tracked
from mloss.states import State
from mloss.streaming import placed


@dataclass(frozen=True)
class Place:
    """Where models run, and in which precision; None: where they are, as they are."""

    device: torch.device | None = None
    dtype: torch.dtype | None = None

    def put(self, state: State) -> dict[str, Tensor]:
        """Hold a state there."""
        return dict(placed(state, device=self.device, dtype=self.dtype))

    def batch(self, batch: Batch) -> Batch:
        """Bring a batch to the precision; it follows the model to its device."""
        if isinstance(batch, Tensor):
            return placed({"": batch}, dtype=self.dtype)[""]
        return dict(placed(batch, dtype=self.dtype))


@dataclass(frozen=True, eq=False)
class Runner:
    """An architecture, and the samples that states of it are run on.

    `samples` has the batches of each source's task, or of all tasks in one.
    """

    model: nn.Module
    samples: Sequence[Sequence[Batch]]
    pooling: Pooling
    place: Place

    def rows(self, state: State) -> list[Float[Tensor, "sample entry"]]:
        """Outputs of a state on every list of samples, one row a sample."""
        return self._run(state)[0]

    def references(
        self, sources: Sequence[State], weights: Tensor
    ) -> dict[str, Tensor]:
        """Run every source on all samples, each in memory only while it runs.

        "expert/<source>" has its rows on the samples of its own task, "ensemble/<list>"
        the weighted mean of all on each list, and "logits" whether the model calls its
        output so.
        """
        found: dict[str, Tensor] = {}
        for index, source in enumerate(tracked(sources, "running the sources")):
            each, logits = self._run(source)
            found[f"expert/{index}"] = each[index if len(each) > 1 else 0]
            found["logits"] = torch.tensor(logits)
            for place, row in enumerate(each):
                term, key = weights[index].item() * row.double(), f"ensemble/{place}"
                found[key] = found[key] + term if key in found else term
        return found

    def _run(self, state: State) -> tuple[list[Tensor], bool]:
        held = self.place.put(state)
        with (
            evaluating(self.model),
            _buffers_on(self.model, self.place.device),
            pooled(self.model, pooling=self.pooling) as output,
        ):
            batches = [list(map(self.place.batch, each)) for each in self.samples]
            return [rows(self.model, held, each) for each in batches], output.logits


@dataclass(frozen=True, eq=False)
class Examination:
    """Merges held against what the sources say of the same samples."""

    runner: Runner
    references: Mapping[str, Tensor]
    heads: Sequence[Head] | None

    def check(self) -> None:
        """Raise ValueError where what the experts say cannot be compared at all."""
        for task in range(self._tasks):
            expert = self.references[f"expert/{task}"]
            agreement_of_rows(expert, expert, head=self._head(task))

    def answers(self, state: State) -> dict[str, Tensor]:
        """What there is to keep of a merge, sample by sample.

        "<reads>/<task>/agrees" and ".../divergence" of each task's agreement with its
        expert; "distance" from the ensemble and "length" of the ensemble's row.
        """
        found, tensors = self.runner.rows(state), dict[str, Tensor]()
        for task in range(self._tasks):
            one = self._agreement(found, task)
            tensors[f"{one.reads}/{task}/agrees"] = one.agrees
            tensors[f"{one.reads}/{task}/divergence"] = one.divergence
        ensemble = [self.references[f"ensemble/{i}"] for i in range(len(found))]
        apart = [a.double() - b for a, b in zip(found, ensemble, strict=True)]
        tensors["distance"] = torch.cat([row.norm(dim=1) for row in apart])
        tensors["length"] = torch.cat([row.norm(dim=1) for row in ensemble])
        return tensors

    @property
    def _tasks(self) -> int:
        return sum(name.startswith("expert/") for name in self.references)

    def _agreement(self, found: Sequence[Tensor], task: int) -> Agreement:
        mine = found[task if len(found) > 1 else 0]
        expert = self.references[f"expert/{task}"]
        return agreement_of_rows(mine, expert, head=self._head(task))

    def _head(self, task: int) -> Head | None:
        return self.heads[task] if self.heads else None


@contextmanager
def _buffers_on(model: nn.Module, device: torch.device | None) -> Iterator[None]:
    """Have the buffers that a model makes for itself where it runs, then back."""
    if device is None:
        yield
        return
    own = [(module, dict(module._buffers)) for module in model.modules()]
    for module, buffers in own:
        there = {
            name: None if b is None else b.to(device) for name, b in buffers.items()
        }
        module._buffers.update(there)
    try:
        yield
    finally:
        for module, buffers in own:
            module._buffers.update(buffers)

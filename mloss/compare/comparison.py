"""Merge in several ways and rank the merges without labels."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from mloss.batches import Batch, Data, batches
from mloss.checkpoints import Checkpoint, open_checkpoint, to_transformers
from mloss.compare.candidates import Candidate, default_candidates
from mloss.compare.examination import Examination, Place, Runner
from mloss.compare.heads import Head
from mloss.compare.kept import Origin, kept
from mloss.compare.merger import Merger
from mloss.compare.outcomes import Comparison, outcome, ranked
from mloss.compare.pooling import Pooling, pooled
from mloss.given_models import Model, opened, runnable
from mloss.progress import tracked
from mloss.states import State, listed, state_of
from mloss.weights import Weights, merging_weights


@dataclass(frozen=True)
class _Entrant:
    """A merge to examine: what it answers, and how it is made or read."""

    name: str
    candidate: Candidate | None
    answers: Callable[[], dict[str, Tensor]]
    merged: Callable[[], State]


def compare(
    base: Model,
    sources: Sequence[Model],
    *,
    task_data: Sequence[Data],
    methods: Sequence[Candidate] | None = None,
    merged: Mapping[str, Model] | None = None,
    heads: Sequence[Head] | None = None,
    model: nn.Module | None = None,
    data: Data | None = None,
    weights: Weights = None,
    pooling: Pooling = "mean",
    seed: int = 0,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    origin: Origin = None,
) -> Comparison:
    """Merge in several ways and rank by how often the merge answers as the experts do.

    `task_data` has unlabelled samples of each source's task, in the sources' order, or
    one entry for samples that all tasks share; `heads` a function from the output to
    class scores for each source (see `agreement`, also for `pooling`). `methods` are
    candidates, by default the grids of `default_candidates`; `merged` are further
    merges by name, made by anyone. `data` is for methods that look at inputs of all
    tasks together, by default all of `task_data`. A merge is made where and in what
    its models are; made here or not, it is rounded as it would be written, and run on
    `device` in `dtype`. Methods that look at the model's output see it with one row a
    sample (`pooled`).

    Samples, one source or merge at a time, and one row a sample of each source are
    held in memory. With `origin`, which must say what models, data and heads are,
    results are kept in the cache for the next time. Raises ValueError for models,
    merges, data and heads that do not fit, for two merges of one name, and where every
    candidate is refused.
    """
    start, given = _stored(base), listed(sources)
    samples = _samples(task_data, heads, q=len(given))
    inputs = [b for each in samples for b in each] if data is None else batches(data)
    run_as = runnable(start, given, model=model)
    place = Place(device, dtype)
    runner = Runner(run_as.model, samples, pooling, place)
    shares = merging_weights(weights, q=len(given))
    settings = {"weights": shares.tolist(), "pooling": pooling, "place": str(place)}
    known = None if origin is None else {**origin, **settings}
    references = kept(
        "experts",
        lambda: runner.references([state_of(s) for s in run_as.sources], shares),
        origin=known,
    )
    if heads is None and references["logits"]:
        heads = [nn.Identity()] * len(given)
    merger = Merger(
        start, given, run_as, samples, list(inputs), heads, weights=weights, seed=seed
    )
    exam = Examination(runner, references, heads)
    exam.check()
    candidates = default_candidates() if methods is None else methods
    return _Contest(merger, exam, known).held(candidates, merged or {})


@dataclass(frozen=True, eq=False)
class _Contest:
    """Makes merges, or takes them, and examines each."""

    merger: Merger
    exam: Examination
    origin: Origin

    def held(
        self, candidates: Sequence[Candidate], merged: Mapping[str, Model]
    ) -> Comparison:
        """All of them, ranked; candidates that raise ValueError are refused."""
        entrants = [
            _Entrant(
                one.name, one, partial(self._answers, one), partial(self._made, one)
            )
            for one in candidates
        ] + [
            _Entrant(name, None, partial(self._run, one), partial(self._read, one))
            for name, one in merged.items()
        ]
        _check_names([one.name for one in entrants])
        outcomes, refused = [], {}
        shared = len(self.merger.samples) == 1
        for one in tracked(entrants, "merging and measuring"):
            try:
                found = one.answers()
            except ValueError as error:
                if one.candidate is None:
                    raise
                refused[one.name] = str(error)
                continue
            outcomes.append(
                outcome(
                    one.name, one.candidate, found, shared=shared, merged=one.merged
                )
            )
        return ranked(outcomes, refused)

    def _answers(self, candidate: Candidate) -> dict[str, Tensor]:
        origin = None
        if self.origin is not None:
            seed = self.merger.seed
            origin = {**self.origin, "merge": candidate.name, "seed": seed}
        return kept(
            "merge",
            lambda: self.exam.answers(self.merger.as_run(self._made(candidate))),
            origin=origin,
        )

    def _made(self, candidate: Candidate) -> State:
        # Methods that look at the model's output see it as the heads do.
        with pooled(self.exam.runner.model, pooling=self.exam.runner.pooling):
            try:
                return dict(self.merger.lazily(candidate))
            except (RuntimeError, TypeError) as error:
                # A matrix without an inverse, no memory left, a model it cannot take.
                first = str(error).partition("\n")[0]
                raise ValueError(first or type(error).__name__) from error

    def _run(self, merged: Model) -> dict[str, Tensor]:
        given = runnable(self.merger.base, [merged], model=self.exam.runner.model)
        if self.merger.given.stored is None:
            return self.exam.answers(state_of(given.sources[0]))
        return self.exam.answers(self.merger.as_run(self._read(merged)))

    def _read(self, merged: Model) -> State:
        return state_of(opened(self.merger.base, [merged])[1][0])


def _stored(base: Model) -> nn.Module | State:
    """The base; where it is on disk, a checkpoint in the layout it is written in."""
    if isinstance(base, str | os.PathLike):
        base = open_checkpoint(base)
    if isinstance(base, Checkpoint) and base.layout == "open_clip":
        return to_transformers(base)
    return base


def _check_names(names: Sequence[str]) -> None:
    """Raise ValueError for a name that two merges have."""
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise ValueError(f"two merges are called {twice[0]!r}: name each once")


def _samples(
    task_data: Sequence[Data], heads: Sequence[Head] | None, *, q: int
) -> list[list[Batch]]:
    """Batches of each task, or of all in one, for as many sources and heads."""
    if isinstance(task_data, Tensor | Mapping) or len(task_data) not in (1, q):
        raise ValueError(
            f"task_data must be a sequence of one for all, or one for each of the {q} "
            "sources"
        )
    if heads is not None and len(heads) != q:
        raise ValueError(
            f"heads must hold one for each of the {q} sources, got {len(heads)}"
        )
    return [list(batches(each)) for each in task_data]

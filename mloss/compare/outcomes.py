"""What a comparison finds of each merge, and how the merges rank."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from mloss.compare.agreement import Agreement
from mloss.compare.candidates import Candidate
from mloss.compare.intervals import Interval, mean_of_strata
from mloss.compare.separation import DIGITS, Lead, Strata, leads
from mloss.gap import Gap, gap_of
from mloss.running_mean import RunningMean
from mloss.states import State


@dataclass(frozen=True, eq=False)
class Outcome:
    """One merge: its agreement with each task's expert, and its gap to the ensemble.

    `candidate` is None for a merge that was not made here. With `shared` the tasks
    have one list of samples between them. `merged` makes the merge again, or reads it,
    under the base's names.
    """

    name: str
    candidate: Candidate | None
    agreements: tuple[Agreement, ...]
    gap: Gap
    shared: bool
    merged: Callable[[], State]

    @property
    def strata(self) -> Strata:
        """Agreement sample by sample: of each task, or their mean on shared samples."""
        each = [one.agrees for one in self.agreements]
        return [torch.stack(each).mean(dim=0)] if self.shared else each

    @property
    def agreement(self) -> Interval:
        """Mean over the tasks, with a 95 % interval (`mean_of_strata`)."""
        return mean_of_strata(self.strata)

    @property
    def divergence(self) -> float:
        """Mean over the tasks of their mean divergence."""
        each = [one.mean_divergence for one in self.agreements]
        return math.fsum(each) / len(each)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Merges by their mean agreement with the experts, best first.

    The lower divergence goes first among equals. `leads` says of every merge but the
    first whether the samples tell it from the first. `refused` has the reason for each
    candidate that could not be made or measured.
    """

    outcomes: tuple[Outcome, ...]
    leads: tuple[Lead, ...]
    refused: Mapping[str, str]

    @property
    def best(self) -> Outcome:
        """The first."""
        return self.outcomes[0]

    @property
    def samples(self) -> int:
        """How many samples there are, over all tasks."""
        return sum(map(len, self.best.strata))


def ranked(outcomes: Iterable[Outcome], refused: Mapping[str, str]) -> Comparison:
    """Put outcomes in order. Raises ValueError where there are none."""
    best_first = sorted(
        outcomes,
        key=lambda one: (-round(one.agreement.value, DIGITS), one.divergence),
    )
    if not best_first:
        reasons = "; ".join(f"{name}: {why}" for name, why in refused.items())
        raise ValueError(f"no merge could be compared ({reasons})")
    return Comparison(
        tuple(best_first),
        leads([(one.name, one.strata) for one in best_first]),
        MappingProxyType(dict(refused)),
    )


def outcome(
    name: str,
    candidate: Candidate | None,
    answers: Mapping[str, Tensor],
    *,
    shared: bool,
    merged: Callable[[], State],
) -> Outcome:
    """Read what `Examination.answers` gives, fresh or from the cache."""
    distance, length = RunningMean(), RunningMean()
    distance.add(answers["distance"])
    length.add(answers["length"])
    return Outcome(
        name,
        candidate,
        _agreements(answers),
        gap_of(distance, length),
        shared,
        merged,
    )


def _agreements(answers: Mapping[str, Tensor]) -> tuple[Agreement, ...]:
    reads = "classes" if "classes/0/agrees" in answers else "neighbours"
    tasks = sum(key.endswith("/agrees") for key in answers)
    return tuple(
        Agreement(
            answers[f"{reads}/{task}/agrees"],
            answers[f"{reads}/{task}/divergence"],
            "classes" if reads == "classes" else "neighbours",
        )
        for task in range(tasks)
    )

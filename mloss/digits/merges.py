"""Test accuracy of merges beside their gap to the ensemble, errors included."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import mloss
import theory
from mloss.digits.cache import cached, group
from mloss.digits.candidates import CONTROLS, merge_candidates
from mloss.digits.examination import (
    answers,
    best_step_scale,
    features_of,
    features_of_ensemble,
    features_of_experts,
)
from mloss.digits.models import DigitsModels
from mloss.digits.tasks import TASKS
from mloss.gap import gap
from mloss.inference import evaluating
from mloss.merging import task_arithmetic
from mloss.one_thread import one_thread
from mloss.progress import tracked
from mloss.states import State

REFERENCES = ("base", "experts", "ensemble")


@dataclass(frozen=True)
class Measured:
    """A mean over test images and its standard error, for the models as trained."""

    value: float
    stderr: float


@dataclass(frozen=True)
class MergeTable:
    """Which test images each method answers right, and its gap to the ensemble.

    `correct` holds a [task, image] array for each of `REFERENCES` (the experts each on
    their own task) and each merge. Every merge of `merge_candidates` is there as it
    comes and, as "<name>_rescaled", with its step from the base multiplied by
    `scale["<name>_rescaled"]`: what suits validation images best, or for the row-wise
    merges what suits M-TIES. "average_rescaled" is task arithmetic. `gap` and
    `gap_stderr` are those of `mloss.gap` on unlabelled images: a small gap and a high
    accuracy are different promises.
    """

    learning_rate: float
    density: float
    spread: float
    tasks: tuple[str, ...]
    correct: Mapping[str, NDArray[np.bool_]]
    scale: Mapping[str, float]
    gap: Mapping[str, float]
    gap_stderr: Mapping[str, float]

    def accuracy(self, method: str) -> NDArray[np.float64]:
        """Fraction right on each task's test images, [task]."""
        fractions: NDArray[np.float64] = self.correct[method].mean(axis=1)
        return fractions

    def mean_accuracy(self, method: str) -> Measured:
        """Mean over tasks, with an error that knows the tasks share their images."""
        return _over_images(self.correct[method].mean(axis=0))

    def advantage(self, method: str, *, over: str) -> Measured:
        """Difference of the mean accuracies of two methods, paired by image.

        The error is that of the test images: the models and scales are taken as given.
        """
        first, second = self.correct[method], self.correct[over]
        return _over_images(first.mean(axis=0) - second.mean(axis=0))

    def random_draws(self, *, rescaled: bool = False) -> NDArray[np.float64]:
        """Mean accuracy of each merge with random ranks, [draw]."""
        return np.array(
            [
                self.mean_accuracy(method).value
                for method in self.scale
                if method.startswith("random_ranks_")
                and method.endswith("_rescaled") == rescaled
            ]
        )


def merge_table(
    models: DigitsModels,
    *,
    learning_rate: float,
    density: float = 0.2,
    spread: float = 0.1,
    random_draws: int = 5,
) -> MergeTable:
    """Merge the experts of one learning rate by every method, or read that back.

    ValueError for a learning rate the models were not trained at, and for densities
    that `mloss.merging.m_ties` refuses.
    """
    stored = cached(
        "digits-merges",
        lambda: _measured(
            models,
            learning_rate=learning_rate,
            density=density,
            spread=spread,
            random_draws=random_draws,
        ),
        config={
            **models.origin,
            "learning_rate": learning_rate,
            "density": density,
            "spread": spread,
            "random_draws": random_draws,
        },
        sources=(mloss, theory),
    )
    correct = group(stored, "correct")
    return MergeTable(
        learning_rate=learning_rate,
        density=density,
        spread=spread,
        tasks=tuple(task.name for task in TASKS),
        correct={method: right.numpy() for method, right in correct.items()},
        scale=_numbers(stored, "scale"),
        gap=_numbers(stored, "gap"),
        gap_stderr=_numbers(stored, "gap_stderr"),
    )


def _measured(
    models: DigitsModels,
    *,
    learning_rate: float,
    density: float,
    spread: float,
    random_draws: int,
) -> dict[str, Tensor]:
    """The columns of the table, "<column>/<method>" to tensor."""
    model, images = models.encoder(), models.unlabelled()
    experts = {tuned.task: tuned.state for tuned in models.experts(learning_rate)}
    references = {
        "base": features_of(model, models.base),
        "experts": features_of_experts(model, experts),
        "ensemble": features_of_ensemble(model, experts),
    }
    stored: dict[str, Tensor] = {}

    def keep(method: str, state: State, scale: float) -> None:
        features = features_of(model, state)
        distance = gap(state, list(experts.values()), images, model=model)
        stored[f"correct/{method}"] = answers(models, features, split="test")
        for column, value in (
            ("scale", scale),
            ("gap", distance.mean),
            ("gap_stderr", distance.stderr),
        ):
            stored[f"{column}/{method}"] = torch.tensor(value, dtype=torch.float64)

    with one_thread(), evaluating(model):
        candidates = merge_candidates(
            models,
            learning_rate=learning_rate,
            density=density,
            spread=spread,
            random_draws=random_draws,
            generator=torch.Generator().manual_seed(models.seed),
        )

        @cache
        def scale_of(method: str) -> float:
            return best_step_scale(models, candidates[method], model=model)

        for method, features in references.items():
            stored[f"correct/{method}"] = answers(models, features, split="test")
        for method, merged in tracked(list(candidates.items()), "Testing merges"):
            keep(method, merged, 1.0)
            scale = scale_of("m_ties" if method.startswith(CONTROLS) else method)
            moved = task_arithmetic(models.base, [merged], scale=scale)
            keep(f"{method}_rescaled", moved, scale)
    return stored


def _numbers(stored: Mapping[str, Tensor], column: str) -> dict[str, float]:
    return {method: value.item() for method, value in group(stored, column).items()}


def _over_images(values: NDArray[np.float64]) -> Measured:
    stderr = values.std(ddof=1) / np.sqrt(len(values))
    return Measured(float(values.mean()), float(stderr))

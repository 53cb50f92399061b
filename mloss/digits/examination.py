"""Which images a model, or several at once, answer right on every task."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mloss.digits.models import DigitsModels
from mloss.digits.tasks import TASKS, Task
from mloss.inference import evaluating, forward
from mloss.merging import task_arithmetic
from mloss.states import State

# A task and images in, their features out: what the task's frozen head reads.
Features = Callable[[Task, Tensor], Tensor]
STEP_SCALES = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


def features_of(model: nn.Module, state: State) -> Features:
    """Features of one state, whatever the task."""
    return lambda _, images: forward(model, state, images)


def features_of_experts(model: nn.Module, experts: Mapping[str, State]) -> Features:
    """Features of the expert whose task is asked."""
    return lambda task, images: forward(model, experts[task.name], images)


def features_of_ensemble(model: nn.Module, experts: Mapping[str, State]) -> Features:
    """Mean over the experts of their features, whatever the task."""

    def mean(_: Task, images: Tensor) -> Float[Tensor, "image feature"]:
        each = [forward(model, state, images) for state in experts.values()]
        return torch.stack(each).mean(dim=0)

    return mean


def answers(
    models: DigitsModels, features: Features, *, split: str
) -> Bool[Tensor, "task image"]:
    """Whether each image of a split is answered right, for every task in order."""
    asked = models.splits[split]
    return torch.stack(
        [
            models.heads[task.name].correct(
                features(task, asked.inputs(task)), asked.labels(task)
            )
            for task in TASKS
        ]
    )


def best_step_scale(models: DigitsModels, state: State, *, model: nn.Module) -> float:
    """Of `STEP_SCALES`, the multiple of the step from the base that answers best.

    By mean accuracy over the tasks on validation images; of equals the smallest.
    """

    def accuracy(scale: float) -> float:
        moved = task_arithmetic(models.base, [state], scale=scale)
        right = answers(models, features_of(model, moved), split="validation")
        return right.double().mean().item()

    with evaluating(model):
        return max(STEP_SCALES, key=accuracy)

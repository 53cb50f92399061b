"""The embedded models: one base, its fine-tunes and the tasks' frozen heads."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mloss.digits import encoder, heads, tasks, training
from mloss.digits.cache import cached, group
from mloss.digits.encoder import Encoder
from mloss.digits.heads import Head, class_mean_head
from mloss.digits.tasks import TASKS, Split, Task, digit_splits
from mloss.digits.training import Recipe, fine_tuned, pretrained
from mloss.one_thread import one_thread
from mloss.progress import tracked
from mloss.states import State

DEFAULT_RECIPE = Recipe()


@dataclass(frozen=True)
class FineTune:
    """The base trained further on one task at one learning rate."""

    task: str
    learning_rate: float
    state: State

    @property
    def name(self) -> str:
        """Task and learning rate, as in "parity@0.002"."""
        return f"{self.task}@{self.learning_rate:g}"


@dataclass(frozen=True)
class DigitsModels:
    """Trained in float32, kept in float64 so that small gaps are not rounding.

    `fine_tunes` run over the tasks and, within a task, over `recipe.learning_rates`.
    """

    base: State
    fine_tunes: tuple[FineTune, ...]
    heads: Mapping[str, Head]
    splits: Mapping[str, Split]
    recipe: Recipe
    seed: int

    @property
    def origin(self) -> dict[str, object]:
        """All that these models were made from, for JSON."""
        return _origin(self.seed, self.recipe)

    def encoder(self) -> Encoder:
        """The architecture in float64, holding the base's parameters."""
        model = self.recipe.encoder().double().eval()
        model.load_state_dict(self.base)
        return model

    def experts(self, learning_rate: float) -> tuple[FineTune, ...]:
        """The fine-tunes at one learning rate, in the order of the tasks."""
        if learning_rate not in self.recipe.learning_rates:
            known = self.recipe.learning_rates
            raise ValueError(f"learning_rate is one of {known}, got {learning_rate}")
        return tuple(f for f in self.fine_tunes if f.learning_rate == learning_rate)

    def unlabelled(self, count: int = 128) -> Float[Tensor, "image 8 8"]:
        """Validation images, `count` in all, in equal parts from every task's inputs.

        No image is shown under two tasks. ValueError unless `count` is a positive
        multiple of the number of tasks that the split can serve.
        """
        split = self.splits["validation"]
        if not 0 < count <= len(split.digits) or count % len(TASKS):
            raise ValueError(
                f"count is a positive multiple of {len(TASKS)} up to "
                f"{len(split.digits)}, got {count}"
            )
        parts = split.images[:count].chunk(len(TASKS))
        return torch.cat(
            [task.transform(part) for task, part in zip(TASKS, parts, strict=True)]
        )


def load_digits_models(
    *, seed: int = 0, recipe: Recipe = DEFAULT_RECIPE
) -> DigitsModels:
    """Train the embedded models, or read them back if that was done before.

    The same seed and recipe give the same models on the same machine, whatever its
    number of cores in use. ValueError for a negative seed.
    """
    stored = cached(
        "digits-models",
        lambda: _trained(seed, recipe),
        config=_origin(seed, recipe),
        sources=(encoder, heads, tasks, training),
    )
    splits = {name: _in_float64(split) for name, split in digit_splits().items()}
    return DigitsModels(
        base=_state(stored, "base"),
        fine_tunes=tuple(
            FineTune(task.name, rate, _state(stored, f"{task.name}@{rate:g}"))
            for task, rate in _grid(recipe)
        ),
        heads={
            task.name: Head(**_state(stored, f"{task.name} head")) for task in TASKS
        },
        splits=splits,
        recipe=recipe,
        seed=seed,
    )


def _origin(seed: int, recipe: Recipe) -> dict[str, object]:
    return {"seed": seed, "recipe": asdict(recipe)}


def _grid(recipe: Recipe) -> Iterator[tuple[Task, float]]:
    return product(TASKS, recipe.learning_rates)


def _trained(seed: int, recipe: Recipe) -> dict[str, Tensor]:
    """Every state and head in one flat mapping, "model/parameter" to tensor."""
    split = digit_splits()["train"]
    stored: dict[str, Tensor] = {}

    def keep(model: str, state: Mapping[str, Tensor]) -> None:
        for name, values in state.items():
            stored[f"{model}/{name}"] = values.detach().clone()

    with one_thread():
        base = pretrained(split, recipe=recipe, generator=_generator(seed, 0))
        keep("base", base.state_dict())
        features = base(split.images).detach()
        plan = list(enumerate(_grid(recipe), start=1))
        for run, (task, rate) in tracked(plan, "Fine-tuning on digits"):
            head = class_mean_head(features, split.labels(task), classes=task.classes)
            keep(f"{task.name} head", asdict(head))
            start = recipe.encoder()
            start.load_state_dict(base.state_dict())
            tuned = fine_tuned(
                start,
                head,
                task=task,
                split=split,
                recipe=recipe,
                learning_rate=rate,
                generator=_generator(seed, run),
            )
            keep(f"{task.name}@{rate:g}", tuned.state_dict())
    return stored


def _generator(seed: int, run: int) -> torch.Generator:
    """A stream for each run of each seed, whatever the order of the runs."""
    # torch's generator reads 32 bits, so the two numbers are hashed into as many.
    (mixed,) = np.random.SeedSequence([seed, run]).generate_state(1)
    return torch.Generator().manual_seed(int(mixed))


def _state(stored: Mapping[str, Tensor], model: str) -> State:
    return {name: values.double() for name, values in group(stored, model).items()}


def _in_float64(split: Split) -> Split:
    return replace(split, images=split.images.double())

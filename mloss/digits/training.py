"""Pretraining the encoder and fine-tuning it for one task, on one thread."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mloss.digits.encoder import Encoder, initialise
from mloss.digits.heads import Head
from mloss.digits.tasks import DOMAINS, Split, Task


@dataclass(frozen=True)
class Recipe:
    """All that decides the trained models besides the seed.

    `foreign_share` of each pretraining batch comes from the domain tasks, so that the
    base has met every domain and mastered none.
    """

    width: int = 64
    hidden: int = 128
    blocks: int = 3
    batch: int = 64
    pretraining_steps: int = 400
    pretraining_rate: float = 1e-3
    foreign_share: float = 0.0625
    pixel_noise: float = 0.1
    fine_tuning_steps: int = 120
    learning_rates: tuple[float, ...] = (1e-4, 5e-4, 2e-3)

    def encoder(self) -> Encoder:
        """The architecture, with parameters nobody should rely on."""
        return Encoder(width=self.width, hidden=self.hidden, blocks=self.blocks)


def pretrained(split: Split, *, recipe: Recipe, generator: torch.Generator) -> Encoder:
    """Learn to name the digit, from noisy images of which a few are of other domains.

    The classifier learned alongside is dropped.
    """
    encoder = initialise(recipe.encoder(), generator=generator)
    head = nn.Linear(recipe.width, 10)
    for parameter in head.parameters():
        nn.init.zeros_(parameter)

    def loss() -> Tensor:
        images, digits = _batch(split.images, split.digits, recipe.batch, generator)
        images = _with_foreign(images, share=recipe.foreign_share)
        noise = torch.randn(images.shape, generator=generator)
        features = encoder(images + recipe.pixel_noise * noise)
        return cross_entropy(head(features), digits)

    parameters = [*encoder.parameters(), *head.parameters()]
    steps, rate = recipe.pretraining_steps, recipe.pretraining_rate
    _minimise(loss, parameters, steps=steps, learning_rate=rate)
    return encoder


def fine_tuned(
    encoder: Encoder,
    head: Head,
    *,
    task: Task,
    split: Split,
    recipe: Recipe,
    learning_rate: float,
    generator: torch.Generator,
) -> Encoder:
    """Train `encoder` in place on the task's images and labels under a frozen head."""
    inputs, labels = split.inputs(task), split.labels(task)

    def loss() -> Tensor:
        images, answers = _batch(inputs, labels, recipe.batch, generator)
        return cross_entropy(head.logits(encoder(images)), answers)

    steps = recipe.fine_tuning_steps
    _minimise(
        loss, list(encoder.parameters()), steps=steps, learning_rate=learning_rate
    )
    return encoder


def _minimise(
    loss: Callable[[], Tensor],
    parameters: Sequence[nn.Parameter],
    *,
    steps: int,
    learning_rate: float,
) -> None:
    """AdamW at a constant rate without weight decay."""
    optimiser = torch.optim.AdamW(
        parameters, lr=learning_rate, weight_decay=0.0, fused=True
    )
    for _ in range(steps):
        optimiser.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimiser.step()


def _batch(
    inputs: Tensor, labels: Tensor, size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Rows drawn with replacement."""
    rows = torch.randint(len(labels), (size,), generator=generator)
    return inputs[rows], labels[rows]


def _with_foreign(images: Tensor, *, share: float) -> Tensor:
    """The first `share` of the images, in equal parts, moved to the other domains."""
    part = round(share * len(images) / len(DOMAINS))
    moved = [
        task.transform(images[part * i : part * (i + 1)])
        for i, task in enumerate(DOMAINS)
    ]
    return torch.cat([*moved, images[part * len(DOMAINS) :]])

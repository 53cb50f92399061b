"""Eight tasks on scikit-learn's bundled digits, in three disjoint splits.

Four tasks ask a new question of the images at half their resolution (parity, large,
prime, loops) and four ask for the digit in images of another kind (rotated, inverted,
mirrored, shifted).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import avg_pool2d

SPLIT_SIZES: Mapping[str, int] = {"train": 900, "validation": 297, "test": 600}


@dataclass(frozen=True)
class Task:
    """What a fine-tune sees (`transform` of an image) and answers (`relabel`)."""

    name: str
    classes: int
    transform: Callable[[Tensor], Tensor]
    relabel: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Split:
    """Images with intensities in [0, 1] and the digits they show."""

    images: Float[Tensor, "image 8 8"]
    digits: Int[Tensor, " image"]

    def inputs(self, task: Task) -> Float[Tensor, "image 8 8"]:
        """The images as the task shows them."""
        return task.transform(self.images)

    def labels(self, task: Task) -> Int[Tensor, " image"]:
        """The task's right answers."""
        return task.relabel(self.digits)


def digit_splits() -> dict[str, Split]:
    """The 1797 images as train, validation and test; always the same split."""
    bundle = load_digits()
    images = torch.from_numpy(bundle.images).float() / 16
    digits = torch.from_numpy(bundle.target).long()
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    rows = torch.split(order, list(SPLIT_SIZES.values()))
    return {
        name: Split(images[chosen], digits[chosen])
        for name, chosen in zip(SPLIT_SIZES, rows, strict=True)
    }


def _same(values: Tensor) -> Tensor:
    return values


def _coarse(images: Tensor) -> Tensor:
    pooled = avg_pool2d(images.unsqueeze(1), 2).squeeze(1)
    return pooled.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)


def _one_of(*digits: int) -> Callable[[Tensor], Tensor]:
    return lambda shown: torch.isin(shown, torch.tensor(digits)).long()


QUESTIONS = (
    Task("parity", 2, _coarse, _one_of(1, 3, 5, 7, 9)),
    Task("large", 2, _coarse, _one_of(5, 6, 7, 8, 9)),
    Task("prime", 2, _coarse, _one_of(2, 3, 5, 7)),
    Task("loops", 2, _coarse, _one_of(0, 6, 8, 9)),
)
DOMAINS = (
    Task("rotated", 10, lambda images: images.rot90(1, (1, 2)), _same),
    Task("inverted", 10, lambda images: 1 - images, _same),
    Task("mirrored", 10, lambda images: images.flip(2), _same),
    Task("shifted", 10, lambda images: images.roll((2, 2), (1, 2)), _same),
)
TASKS = QUESTIONS + DOMAINS

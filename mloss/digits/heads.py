"""Frozen classifiers on top of the shared encoder, one a task."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

LOGIT_SCALE = 2.0


@dataclass(frozen=True)
class Head:
    """A linear classifier that no fine-tune changes."""

    weight: Float[Tensor, "class_ feature"]
    bias: Float[Tensor, " class_"]

    def logits(
        self, features: Float[Tensor, "image feature"]
    ) -> Float[Tensor, "image class_"]:
        """Class scores of each image."""
        return features @ self.weight.T + self.bias

    def correct(
        self, features: Float[Tensor, "image feature"], labels: Int[Tensor, " image"]
    ) -> Bool[Tensor, " image"]:
        """Whether the highest score is the label's."""
        return self.logits(features).argmax(dim=1) == labels


def class_mean_head(
    features: Float[Tensor, "image feature"],
    labels: Int[Tensor, " image"],
    *,
    classes: int,
) -> Head:
    """The head whose class vectors point from the mean feature to the class means.

    The part of CLIP's text heads: what the base already knows about each class, as
    unit vectors times a fixed scale. Every class needs at least one image.
    """
    if missing := sorted(set(range(classes)) - set(labels.tolist())):
        raise ValueError(f"labels hold no image of the classes {missing}")
    centre = features.mean(dim=0)
    means = torch.stack([features[labels == c].mean(dim=0) for c in range(classes)])
    directions = torch.nn.functional.normalize(means - centre, dim=1)
    weight = LOGIT_SCALE * directions
    return Head(weight, -weight @ centre)

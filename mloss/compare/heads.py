"""Linear classifiers on top of an encoder, one a task, as a file holds them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import linear, normalize

# The output of a model in, a score for each class out.
Head: TypeAlias = Callable[[Tensor], Tensor]

_NAMES = ("weight", "bias", "scale")


@dataclass(frozen=True, eq=False)
class LinearHead:
    """Scores of the classes: weight @ feature + bias.

    With a `scale` it is CLIP's head: scale * weight @ (feature / |feature|) + bias, the
    rows of `weight` being the embedded names of the classes.
    """

    weight: Float[Tensor, "class_ feature"]
    bias: Float[Tensor, " class_"] | None = None
    scale: float | None = None

    def __call__(
        self, features: Float[Tensor, "sample feature"]
    ) -> Float[Tensor, "sample class_"]:
        """Scores of each sample, in the precision and on the device of its features."""
        if features.shape[-1] != self.weight.shape[-1]:
            raise ValueError(
                f"the head reads {self.weight.shape[-1]} features, "
                f"the model gives {features.shape[-1]}"
            )
        if self.scale is not None:
            features = self.scale * normalize(features, dim=-1)
        bias = None if self.bias is None else self.bias.to(features)
        return linear(features, self.weight.to(features), bias)


def read_head(path: Path) -> LinearHead:
    """Read a head from a safetensors file.

    It holds `weight` [class, feature] and, optionally, `bias` [class] and the number
    `scale`. Raises ValueError for a file of another kind or with other tensors in it.
    """
    if not path.is_file():
        raise ValueError(f"head {path} does not exist")
    try:
        held = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"head {path} is no safetensors file ({error})") from error
    if "weight" not in held or (unknown := sorted(held.keys() - set(_NAMES))):
        wrong = "no 'weight'" if "weight" not in held else repr(unknown[0])
        raise ValueError(
            f"head {path} must hold 'weight' [class, feature] and at most 'bias' "
            f"[class] and 'scale' beside it; it has {wrong}"
        )
    return _checked(held, path)


def _checked(held: dict[str, Tensor], path: Path) -> LinearHead:
    weight, bias, scale = (held.get(name) for name in _NAMES)
    assert weight is not None, "looked for before"
    fits = weight.ndim == 2 and len(weight) > 0
    fits = fits and (bias is None or bias.shape == weight.shape[:1])
    if not fits or (scale is not None and scale.numel() != 1):
        shapes = {name: list(value.shape) for name, value in held.items()}
        raise ValueError(
            f"head {path} must hold 'weight' [class, feature] of at least one class, "
            f"'bias' [class] and one number as 'scale', got the shapes {shapes}"
        )
    if any(not torch.isfinite(value).all() for value in held.values()):
        raise ValueError(f"head {path} has a value that is not finite")
    return LinearHead(weight, bias, None if scale is None else scale.item())

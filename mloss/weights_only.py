"""What the weights alone foretell of every site, before any sample is run."""

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.batches import Batch
from mloss.data_free import predicted_without_data
from mloss.given_models import Model, in_one_model
from mloss.sites import find_sites
from mloss.streaming import streamed
from mloss.weights import Weights, merging_weights

_WORDS = 8
_SIDE = 224  # of images, for networks that take any


@dataclass(frozen=True)
class Foretold:
    """Node M-Loss [node] at one site by `mloss.data_free`.

    None where no normalisation feeds the layer, so that the size of its input is not
    known, and for gated pairs, which have no formula.
    """

    layer_name: str
    activation_name: str
    node: Float[Tensor, " node"] | None


def foretell(
    base: Model,
    sources: Iterable[Model],
    *,
    model: nn.Module | None = None,
    weights: Weights = None,
    example: Batch | None = None,
) -> tuple[Foretold, ...]:
    """Foretell the node M-Loss of every site, in forward order, without samples.

    The network runs once on one `example`, by default a blank one of `transformers`'
    inputs, only to see which layer feeds which activation. The layers' inputs are
    taken to be standardised (`mloss.data_free.assumed_moments`). Raises ValueError as
    `mloss.score` does, and where an example is needed and not given.
    """
    run_in, start, states = in_one_model(base, sources, model=model)
    w = merging_weights(weights, q=len(states))
    shown = blank(run_in) if example is None else example
    with streamed(run_in, start):
        sites = find_sites(run_in, shown)
    return tuple(
        Foretold(
            site.layer,
            site.activation_name,
            predicted_without_data(site, start, states, weights=w),
        )
        for site in sites
    )


def blank(model: nn.Module) -> dict[str, Tensor]:
    """One black image, one text of a few words, or both, as a model's class takes them.

    Raises ValueError where it takes neither by the names that `transformers` has.
    """
    takes = inspect.signature(type(model).forward).parameters
    config = getattr(model, "config", None)
    inputs: dict[str, Tensor] = {}
    if config is not None and "pixel_values" in takes:
        seen: Any = getattr(config, "vision_config", config)
        channels = getattr(seen, "num_channels", 3)
        inputs["pixel_values"] = torch.zeros(
            1, channels, *_sides(getattr(seen, "image_size", _SIDE))
        )
    if config is not None and "input_ids" in takes:
        inputs["input_ids"] = torch.arange(1, _WORDS + 1)[None]
    if not inputs:
        raise ValueError(
            f"data or an example must be given: what {type(model).__name__} takes is "
            "not known"
        )
    return inputs


def _sides(image_size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    if isinstance(image_size, int):
        return image_size, image_size
    height, width = image_size
    return height, width

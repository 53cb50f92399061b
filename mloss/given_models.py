"""A base and its sources, however they are given, as states of one architecture."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from mloss.checkpoints import (
    Checkpoint,
    Entry,
    as_source,
    check_finite,
    in_model,
    in_working_dtypes,
    load_model,
    open_checkpoint,
    to_transformers,
)
from mloss.checkpoints.compatibility import check_same_weights
from mloss.checkpoints.model_names import names_in_model
from mloss.inference import architecture, check_fits
from mloss.states import State, listed, matched, state_of

Model: TypeAlias = nn.Module | State | str | os.PathLike[str]
_InMemory: TypeAlias = nn.Module | State
_ON_DISK = (str, os.PathLike, Checkpoint)


@dataclass(frozen=True)
class Runnable:
    """An architecture, and a base and sources that have its parameters.

    `stored` is the base under its names on disk, None where no model is on disk.
    """

    model: nn.Module
    base: nn.Module | State
    sources: Sequence[nn.Module | State]
    stored: Checkpoint | None


def opened(
    base: Model, sources: Iterable[Model], *, base_is: str = "base"
) -> tuple[nn.Module | State, list[nn.Module | State]]:
    """The same models, those on disk as checkpoints under the base's names.

    Where one of them is on disk all become checkpoints in one dtype, the widest of each
    tensor (`mloss.checkpoints.in_working_dtypes`), whose names and shapes are compared;
    no tensor is read. An open_clip base gets the names of `transformers`. `base_is` is
    what messages call the base; an adapter needs one that is called so, and no merge.
    Raises ValueError for what cannot be opened or does not match, and as `listed` does.
    """
    return _opened(base, sources, base_is=base_is, at_least=None)


def _opened(
    base: Model,
    sources: Iterable[Model],
    *,
    base_is: str,
    at_least: torch.dtype | None,
) -> tuple[nn.Module | State, list[nn.Module | State]]:
    given = listed(sources)
    if not any(isinstance(model, _ON_DISK) for model in (base, *given)):
        return cast("_InMemory", base), cast("list[_InMemory]", given)
    first = _checkpoint(base, f"the {base_is}")
    if first.layout == "open_clip":
        first = to_transformers(first)
    others = [_checkpoint(model, f"source {i}") for i, model in enumerate(given)]
    adapters = [other for other in others if other.layout == "lora"]
    if adapters and base_is != "base":
        raise ValueError(
            f"{adapters[0].source} is an adapter, and its base is not known here: give "
            "as_source(base, adapter) of mloss.checkpoints"
        )
    others = [as_source(first, other) for other in others]
    check_same_weights(first, others)
    start, states = in_working_dtypes(first, others, at_least=at_least)
    return start, list(states)


def runnable(
    base: Model,
    sources: Iterable[Model],
    *,
    model: nn.Module | None = None,
    base_is: str = "base",
) -> Runnable:
    """Open the models and find what to run them in.

    That is `model`, or the first module given, or else the class that the
    configuration of a checkpoint names. Raises ValueError as `opened` and
    `mloss.inference.architecture` do, and where no checkpoint has a configuration.
    """
    given = listed(sources)
    start, states = _opened(base, given, base_is=base_is, at_least=torch.float32)
    for model_on_disk in (start, *states):
        if isinstance(model_on_disk, Checkpoint):
            check_finite(model_on_disk)
    modules = [m for m in (base, *given) if isinstance(m, nn.Module)]
    if not isinstance(start, Checkpoint):
        run_in = architecture(model, states, **{base_is: start})
        return Runnable(run_in, start, states, stored=None)
    if model is None and not modules:
        run_in = either_tower(load_model(configured(start, states)))
    else:
        run_in = architecture(model, modules)
    return Runnable(
        run_in,
        in_model(start, run_in),
        [in_model(state, run_in) for state in states if isinstance(state, Checkpoint)],
        stored=start,
    )


def in_one_model(
    base: Model,
    sources: Iterable[Model],
    *,
    model: nn.Module | None = None,
    base_is: str = "base",
) -> tuple[nn.Module, State, Sequence[State]]:
    """Give the architecture of `runnable`, and states that match each other and it.

    Raises ValueError as `runnable`, `mloss.states.matched` and `check_fits` do.
    """
    given = runnable(base, sources, model=model, base_is=base_is)
    # What was on disk has been looked through already, by `runnable`.
    start, states = matched(
        given.base, given.sources, known_finite=given.stored is not None
    )
    check_fits(given.model, start)
    return given.model, start, states


def by_stored_names(state: State, base: Checkpoint, model: nn.Module) -> State:
    """A state of the model under the base's names on disk, to be saved by.

    What the base stores and the model makes for itself is taken from the base. Entries
    are looked up in the state when they are asked for.
    """
    return Renamed(state, names_in_model(base, model), otherwise=base)


class Renamed(Mapping[str, Tensor]):
    """A state under other names; what it has not is looked up elsewhere."""

    def __init__(
        self, state: State, names: Mapping[str, str], *, otherwise: State
    ) -> None:
        self.state, self._names, self._otherwise = state, names, otherwise

    def __getitem__(self, key: str) -> Tensor:
        name = self._names[key]
        return self.state[name] if name in self.state else self._otherwise[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def either_tower(model: nn.Module) -> nn.Module:
    """Let a dual encoder, such as CLIP, run on images or on texts alone.

    Given one of the two it returns that tower's projected embedding; given both, what
    it always does. Other models are returned as they are. The forward of this one
    instance changes.
    """
    towers = {
        "pixel_values": getattr(model, "get_image_features", None),
        "input_ids": getattr(model, "get_text_features", None),
    }
    if all(towers.values()):
        model.forward = partial(_one_or_both, model.forward, towers)
    return model


def _one_or_both(both: Any, towers: dict[str, Any], **inputs: Tensor) -> object:
    present = [name for name in towers if name in inputs]
    if len(present) != 1:
        return both(**inputs)
    features = towers[present[0]](**inputs)
    return features if isinstance(features, Tensor) else features.pooler_output


def _checkpoint(model: Model, name: str) -> Checkpoint:
    if isinstance(model, str | os.PathLike):
        model = open_checkpoint(model)
    if isinstance(model, Checkpoint):
        return model
    entries = {
        key: Entry(tuple(value.shape), value.dtype, partial(_itself, value))
        for key, value in state_of(model).items()
    }
    return Checkpoint(name, entries)


def _itself(value: Tensor) -> Tensor:
    return value


def configured(base: Checkpoint, sources: Iterable[object]) -> Checkpoint:
    """The first with a configuration, which says what class to build."""
    models = [m for m in (base, *sources) if isinstance(m, Checkpoint)]
    return next((m for m in models if m.config is not None), base)

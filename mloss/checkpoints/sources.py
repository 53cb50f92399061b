"""Sources put beside their base: the same names, and numbers to compute with."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial, reduce

import torch
from torch import Tensor

from mloss.checkpoints.checkpoint import Checkpoint, Entry
from mloss.checkpoints.clip import entries_in_layout
from mloss.checkpoints.lora import with_adapter
from mloss.checkpoints.places import place_in


def as_source(base: Checkpoint, source: Checkpoint) -> Checkpoint:
    """A source under the base's names: adapters merged in, layouts of CLIP converted.

    Of a CLIP in the other layout only what the base has is taken, so that an image
    tower can be the base of whole models. Names of other versions of transformers are
    translated. Integers, such as counters of batches and the position ids that some
    versions store and others make, are never merged: they are the base's, unless they
    have another shape. What then still differs is for `check_compatible` to say.
    Raises ValueError for adapters and layouts that cannot be brought to the base's.
    """
    if source.layout == "lora":
        return with_adapter(base, source)
    if {source.layout, base.layout} == {"open_clip", "transformers"}:
        place = place_in(base)
        converted = entries_in_layout(source, base.layout)
        entries = {n: e for k, e in converted.items() if (n := place(k)) is not None}
        return replace(base, source=source.source, entries=entries)
    return _with_integers_of(base, _renamed(base, source))


def _renamed(base: Checkpoint, source: Checkpoint) -> Checkpoint:
    if set(source) == set(base):
        return source
    place = place_in(base)
    places = {name: place(name) or name for name in source}
    if len(set(places.values())) < len(places):
        return source
    entries = {places[name]: entry for name, entry in source.entries.items()}
    return replace(source, entries=entries)


def _with_integers_of(base: Checkpoint, source: Checkpoint) -> Checkpoint:
    own = {
        name: entry
        for name, entry in source.entries.items()
        if name in base or entry.dtype.is_floating_point
    }
    integers = {
        name: entry
        for name, entry in base.entries.items()
        if not entry.dtype.is_floating_point
        and entry.shape == own.get(name, entry).shape
    }
    return replace(source, entries=own | integers)


def in_working_dtypes(
    base: Checkpoint,
    sources: Sequence[Checkpoint],
    *,
    at_least: torch.dtype | None = torch.float32,
) -> tuple[Checkpoint, list[Checkpoint]]:
    """The same checkpoints, each tensor read in one dtype for the base and all sources.

    It is the widest that any has, so that every stored number is kept as it is, and
    `at_least` this one, so that halves are run as floats. Integers stay theirs. The
    result of a merge goes back to the base's dtype as it is saved. Raises ValueError
    where a source lacks a name of the base.
    """
    models = [base, *sources]
    dtypes = {name: _working_dtype(name, models, at_least) for name in base}
    start, *others = (_read_as(model, dtypes) for model in models)
    return start, others


def _working_dtype(
    name: str, models: Sequence[Checkpoint], at_least: torch.dtype | None
) -> torch.dtype:
    for model in models:
        if name not in model:
            raise ValueError(f"{model.source} lacks {name!r}")
    stored = [model.entries[name].dtype for model in models]
    if at_least is not None and any(dtype.is_floating_point for dtype in stored):
        stored.append(at_least)
    return reduce(torch.promote_types, stored)


def _read_as(model: Checkpoint, dtypes: dict[str, torch.dtype]) -> Checkpoint:
    entries = {
        name: Entry(entry.shape, dtypes[name], partial(_read, entry, dtypes[name]))
        for name, entry in model.entries.items()
        if name in dtypes
    }
    return replace(model, entries=entries)


def _read(entry: Entry, dtype: torch.dtype) -> Tensor:
    return entry.read().to(dtype)

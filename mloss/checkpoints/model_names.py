"""A checkpoint's weights under the names that the model itself gives them.

`transformers` renames modules from version to version and translates the names on disk
as it loads; weights that a model ties are on disk once. A merge is made and saved under
the names on disk, a network is run under its own.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise

from torch import Tensor, nn

from mloss.checkpoints.checkpoint import Checkpoint, Entry
from mloss.checkpoints.listing import listing


def in_model(checkpoint: Checkpoint, model: nn.Module) -> Checkpoint:
    """The same weights, still on disk, by the names of `model.state_dict()`.

    A tied weight appears under each of its names. Buffers that the model makes for
    itself are left out. Raises ValueError naming the first weights that are missing,
    left over or of another shape, with their number.
    """
    expected = model.state_dict()
    entries = {}
    left_over = []
    for disk_name, name in names_in_model(checkpoint, model).items():
        if name in expected:
            entries[name] = checkpoint.entries[disk_name]
        elif not _made_by(model, name):
            left_over.append(disk_name)
    for names in _tied(model):
        for known in [entries[name] for name in names if name in entries][:1]:
            entries |= {name: entries.get(name, known) for name in names}
    _check_same_names(checkpoint, model, set(expected) - set(entries), left_over)
    _check_shapes(checkpoint, entries, expected)
    return replace(checkpoint, entries={name: entries[name] for name in expected})


def names_in_model(checkpoint: Checkpoint, model: nn.Module) -> dict[str, str]:
    """The model's name for every name on disk, whether the model has it or not.

    Raises ValueError where loading would also compute, as for mixtures of experts
    whose weights are stacked.
    """
    translate = translator(model)
    names = {name: translate(name) for name in checkpoint}
    twice = sorted(names, key=names.__getitem__)
    for first, second in pairwise(twice):
        if names[first] == names[second]:
            raise ValueError(
                f"{checkpoint.source} has {first!r} and {second!r}, "
                f"which are both {names[first]!r} of the model"
            )
    return names


def translator(model: nn.Module) -> Callable[[str], str]:
    """From the name of a weight on disk to the model's own.

    A name that the model does not know is given as it would be translated; one that
    is its own already stays. Raises ValueError, when called, for weights that loading
    would compute.
    """
    if not hasattr(model, "base_model_prefix"):
        return str
    from transformers import PreTrainedModel
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        rename_source_key,
    )

    if not isinstance(model, PreTrainedModel):
        return str
    mapping = get_model_conversion_mapping(model)
    renamings = [step for step in mapping if isinstance(step, WeightRenaming)]
    converters = [step for step in mapping if isinstance(step, WeightConverter)]
    expected = model.state_dict()
    prefix = model.base_model_prefix

    def translate(name: str) -> str:
        renamed, computed = rename_source_key(
            name, renamings, converters, prefix, expected
        )
        if computed is not None:
            raise ValueError(
                f"{name!r} is not loaded as it is stored but computed into "
                f"{renamed!r}, which is not supported for {type(model).__name__}"
            )
        if renamed not in expected and name in expected:
            return name
        return str(renamed)

    return translate


def _made_by(model: nn.Module, name: str) -> bool:
    """Whether this is a buffer that the model computes, or one it says to ignore."""
    kept = model.state_dict()
    made = {n.rpartition(".")[2] for n, _ in model.named_buffers() if n not in kept}
    ignored = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    last = name.rpartition(".")[2]
    return last in made or any(re.search(pattern, name) for pattern in ignored)


def _tied(model: nn.Module) -> Iterator[list[str]]:
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    return (names for names in owners.values() if len(names) > 1)


def _check_same_names(
    checkpoint: Checkpoint, model: nn.Module, missing: set[str], left_over: list[str]
) -> None:
    kind = type(model).__name__
    if missing:
        raise ValueError(
            f"{checkpoint.source} lacks {listing(missing)}, which a {kind} has"
        )
    if left_over:
        raise ValueError(
            f"{checkpoint.source} has {listing(left_over)}, which a {kind} has not"
        )


def _check_shapes(
    checkpoint: Checkpoint, entries: Mapping[str, Entry], expected: Mapping[str, Tensor]
) -> None:
    for name, value in expected.items():
        if entries[name].shape != tuple(value.shape):
            raise ValueError(
                f"{name!r} has shape {entries[name].shape} in {checkpoint.source}, "
                f"{tuple(value.shape)} in its model"
            )

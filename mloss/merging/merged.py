"""One front door to every merging method."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from mloss.batches import Data
from mloss.checkpoints import Checkpoint
from mloss.given_models import Model, Renamed, by_stored_names, opened, runnable
from mloss.merging.pruning.row_wise import NodeWise
from mloss.merging.registry import METHODS
from mloss.states import State


@dataclass(frozen=True)
class Merged:
    """A merged state dict, and the method and options that made it."""

    state: dict[str, Tensor]
    method: str
    options: Mapping[str, Any]


def merge(
    base: Model,
    sources: Iterable[Model],
    *,
    method: str,
    model: nn.Module | None = None,
    data: Data | None = None,
    task_data: Sequence[Data] | None = None,
    **options: Any,
) -> Merged:
    """Merge the sources by a method of `METHODS`, with that method's options.

    Models are modules, state dicts, or paths and hub ids; of models on disk the result
    has the base's names there, for `mloss.checkpoints.save_checkpoint`. What a method
    `needs` says whether it uses `data` (batches of unlabelled inputs), `task_data` (the
    same for each source) and `model` (the architecture; needed where base and sources
    are state dicts). Nothing that is passed in changes. Raises ValueError for an
    unknown method, missing data or model, and where a method that runs the model gets
    modules of different architectures; TypeError for an option that the method does
    not have; and what the method raises.
    """
    lazy = merged_lazily(
        base,
        sources,
        method=method,
        model=model,
        data=data,
        task_data=task_data,
        **options,
    )
    return Merged(dict(lazy), method, MappingProxyType(options))


def merged_lazily(
    base: Model,
    sources: Iterable[Model],
    *,
    method: str,
    model: nn.Module | None = None,
    data: Data | None = None,
    task_data: Sequence[Data] | None = None,
    **options: Any,
) -> State:
    """Give the merge as a state whose entries are computed as they are looked up.

    Arguments and errors are those of `merge`; what goes wrong in one entry is raised
    when it is looked up.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is not one of: {', '.join(METHODS)}")
    chosen = METHODS[method]
    given = {"data": data, "task_data": task_data}
    for name in sorted(chosen.needs & given.keys()):
        if given[name] is None:
            raise ValueError(
                f"{name} must be given: {method} looks at unlabelled inputs"
            )
        options[name] = given[name]
    if "model" in chosen.needs:
        return _run(chosen.lazily, base, sources, model=model, **options)
    start, states = opened(base, sources)
    return chosen.lazily(start, states, **options)


def mean_scores(merged: State) -> dict[str, float]:
    """Mean node M-Loss by layer of a merge by `merged_lazily` that was guided by it."""
    state = merged.state if isinstance(merged, Renamed) else merged
    return dict(state.mean_scores) if isinstance(state, NodeWise) else {}


def _run(
    function: Callable[..., State],
    base: Model,
    sources: Iterable[Model],
    *,
    model: nn.Module | None,
    **options: Any,
) -> State:
    """Apply a method that runs the model, and give what it returns by stored names."""
    given = runnable(base, sources, model=model)
    state = function(given.base, given.sources, model=given.model, **options)
    if isinstance(given.stored, Checkpoint):
        return by_stored_names(state, given.stored, given.model)
    return state

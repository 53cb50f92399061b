"""One front door to every merging method."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from mloss.batches import Data
from mloss.checkpoints import Checkpoint
from mloss.given_models import Model, by_stored_names, opened, runnable
from mloss.merging.average import average
from mloss.merging.dare import dare
from mloss.merging.m_ties import m_ties
from mloss.merging.task_arithmetic import task_arithmetic
from mloss.merging.ties import ties

Method = Callable[..., dict[str, Tensor]]

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "average": average,
        "task_arithmetic": task_arithmetic,
        "ties": ties,
        "dare": dare,
        "m_ties": m_ties,
    }
)
# The methods that look at what the network does with data.
DATA_METHODS = frozenset({"m_ties"})


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
    **options: Any,
) -> Merged:
    """Merge the sources by a method of `METHODS`, with that method's options.

    Models are modules, state dicts, or paths and hub ids; of models on disk the result
    has the base's names there, for `mloss.checkpoints.save_checkpoint`. Only the
    methods in `DATA_METHODS` use `data` (batches of unlabelled inputs) and `model`
    (the architecture; needed where base and sources are state dicts). Nothing that is
    passed in changes. Raises ValueError for an unknown method, missing data
    or model, and where a method that runs the model gets modules of different
    architectures; TypeError for an option that the method does not have; and what
    the method raises.
    """
    if method not in METHODS:
        known = ", ".join(METHODS)
        raise ValueError(f"method {method!r} is not one of: {known}")
    if method in DATA_METHODS:
        if data is None:
            raise ValueError(f"data must be given: {method} looks at unlabelled inputs")
        state = _with_data(method, base, sources, model=model, data=data, **options)
    else:
        start, states = opened(base, sources)
        state = METHODS[method](start, states, **options)
    return Merged(state=state, method=method, options=MappingProxyType(options))


def _with_data(
    method: str,
    base: Model,
    sources: Iterable[Model],
    *,
    model: nn.Module | None,
    data: Data,
    **options: Any,
) -> dict[str, Tensor]:
    given = runnable(base, sources, model=model)
    state = METHODS[method](
        given.base, given.sources, model=given.model, data=data, **options
    )
    if isinstance(given.stored, Checkpoint):
        return by_stored_names(state, given.stored, given.model)
    return state

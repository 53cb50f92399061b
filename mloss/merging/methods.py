"""One front door to every merging method."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from mloss.batches import Data
from mloss.inference import architecture
from mloss.merging.average import average
from mloss.merging.dare import dare
from mloss.merging.m_ties import m_ties
from mloss.merging.task_arithmetic import task_arithmetic
from mloss.merging.ties import ties
from mloss.states import State, listed

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
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    method: str,
    model: nn.Module | None = None,
    data: Data | None = None,
    **options: Any,
) -> Merged:
    """Merge the sources by a method of `METHODS`, with that method's options.

    Only the methods in `DATA_METHODS` use `data` (batches of unlabelled inputs) and
    `model` (the architecture; needed where base and sources are state dicts). Nothing
    that is passed in changes. Raises ValueError for an unknown method, missing data
    or model, and where a method that runs the model gets modules of different
    architectures; TypeError for an option that the method does not have; and what
    the method raises.
    """
    sources = listed(sources)
    if method not in METHODS:
        known = ", ".join(METHODS)
        raise ValueError(f"method {method!r} is not one of: {known}")
    if method in DATA_METHODS:
        if data is None:
            raise ValueError(f"data must be given: {method} looks at unlabelled inputs")
        run_in = architecture(model, sources, base=base)
        state = METHODS[method](base, sources, model=run_in, data=data, **options)
    else:
        state = METHODS[method](base, sources, **options)
    return Merged(state=state, method=method, options=MappingProxyType(options))

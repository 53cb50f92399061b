"""What merging methods there are: each enters itself where it is written."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, ParamSpec

from torch import Tensor

from mloss.states import State

P = ParamSpec("P")
# "model" and "data": it runs the network on unlabelled inputs; "task_data": on those of
# each source's own task.
Need = Literal["model", "data", "task_data"]

# What is no option of a method but what it works on.
_GIVEN = frozenset({"base", "sources", "weights", "generator", "model", "data"})
_GIVEN_BY_TASK = frozenset({"task_data", "heads"})


@dataclass(frozen=True)
class Method:
    """A merging method: whose it is, what it needs, and its function.

    `lazily` returns the merge as a state whose entries are computed as they are
    looked up.
    """

    name: str
    source: str
    needs: frozenset[Need]
    lazily: Callable[..., State]

    @property
    def options(self) -> dict[str, Any]:
        """The method's own options with their defaults."""
        return {
            name: parameter.default
            for name, parameter in inspect.signature(self.lazily).parameters.items()
            if name not in _GIVEN | _GIVEN_BY_TASK
        }

    @property
    def draws(self) -> bool:
        """Whether it takes random numbers, from a `generator`."""
        return "generator" in inspect.signature(self.lazily).parameters

    @property
    def reads_heads(self) -> bool:
        """Whether it takes a classifier of each source, as `heads`."""
        return "heads" in inspect.signature(self.lazily).parameters


_METHODS: dict[str, Method] = {}
METHODS: Mapping[str, Method] = MappingProxyType(_METHODS)


def merging_method(
    *, source: str, needs: tuple[Need, ...] = ()
) -> Callable[[Callable[P, State]], Callable[P, dict[str, Tensor]]]:
    """Enter a function that returns a lazy state as the method of its name.

    `source` cites it. What the decorated function returns is the whole merge as a
    dict; `METHODS[name].lazily` is the function as written.
    """

    def enter(function: Callable[P, State]) -> Callable[P, dict[str, Tensor]]:
        name = function.__name__
        if name in _METHODS:
            raise ValueError(f"there is a merging method {name!r} already")
        _METHODS[name] = Method(name, source, frozenset(needs), function)

        @functools.wraps(function)
        def merged(*args: P.args, **kwargs: P.kwargs) -> dict[str, Tensor]:
            return dict(function(*args, **kwargs))

        return merged

    return enter

"""Calls of submodules, recorded as a model runs and made again with other weights."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from mloss.states import State

# A cache of keys and values is filled in the recorded call: it would double in the
# next. It starts empty in a forward pass, so leaving it out changes nothing.
_CACHES = ("past_key_values", "past_key_value", "layer_past")


@dataclass(frozen=True, eq=False)
class Call:
    """The arguments of one call, and the first tensor that it returned."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Tensor

    @property
    def input(self) -> Tensor:
        """The first argument."""
        value: Tensor = (*self.args, *self.kwargs.values())[0]
        return value

    def on(self, x: Tensor) -> "Call":
        """Give the same call with another first argument."""
        if self.args:
            return replace(self, args=(x, *self.args[1:]))
        first = next(iter(self.kwargs))
        return replace(self, kwargs={**self.kwargs, first: x})


@contextmanager
def recorded_calls(
    model: nn.Module, names: Iterable[str]
) -> Iterator[Mapping[str, list[Call]]]:
    """Record the calls of the named submodules while the block runs.

    A submodule that was not called has an empty list. Calls whose first argument or
    first result is no tensor are left out. The hooks are gone when the block ends, on
    error too.
    """
    calls: defaultdict[str, list[Call]] = defaultdict(list)

    def keep(
        name: str,
        _: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: object,
    ) -> None:
        kept = {key: v for key, v in kwargs.items() if key not in _CACHES}
        values, result = (*args, *kept.values()), _first(output)
        if values and isinstance(values[0], Tensor) and isinstance(result, Tensor):
            calls[name].append(Call(args, kept, result))

    with ExitStack() as stack:
        for name in names:
            handle = model.get_submodule(name).register_forward_hook(
                partial(keep, name), with_kwargs=True
            )
            stack.callback(handle.remove)
        yield calls


def repeated(module: nn.Module, own: State, call: Call) -> Tensor:
    """First tensor that a call returns with the module's parameters replaced.

    `own` goes by the module's own names, as `mloss.pre_activations.own_state` has it.
    """
    result = _first(functional_call(module, dict(own), call.args, dict(call.kwargs)))
    assert isinstance(result, Tensor)
    return result


def _first(output: object) -> object:
    if isinstance(output, Mapping):
        output = tuple(output.values())
    return output[0] if isinstance(output, tuple) and output else output

"""What enters the submodules of a model as it runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

# Takes the tensor that enters a submodule and what leaves it.
Visitor = Callable[[Tensor, Any], None]


@contextmanager
def visited(model: nn.Module, visitors: Mapping[str, Visitor]) -> Iterator[None]:
    """Show each named submodule's input and output to a function, as it has run.

    The hooks are gone when the block ends, on error too. Raises KeyError for names
    the model does not have.
    """
    modules = dict(model.named_modules())
    if missing := sorted(set(visitors) - set(modules)):
        raise KeyError(f"{type(model).__name__} has no submodule named {missing}")
    with ExitStack() as stack:
        for name, visitor in visitors.items():
            handle = modules[name].register_forward_hook(
                partial(_shown, visitor), with_kwargs=True
            )
            stack.callback(handle.remove)
        yield


def _shown(
    visitor: Visitor,
    _: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: object,
) -> None:
    visitor((*args, *kwargs.values())[0].detach(), output)


@contextmanager
def recorded_inputs(
    model: nn.Module, names: Sequence[str]
) -> Iterator[dict[str, Tensor]]:
    """Record what enters the named submodules in the last forward pass of the block.

    The mapping fills as the model runs. Hooks and errors are those of `visited`.
    """
    seen: dict[str, Tensor] = {}

    def keep(name: str, entered: Tensor, _: object) -> None:
        seen[name] = entered

    with visited(model, {name: partial(keep, name) for name in names}):
        yield seen

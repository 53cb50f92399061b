"""What enters the submodules of a model as it runs."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from torch import Tensor, nn


@contextmanager
def recorded_inputs(
    model: nn.Module, names: Sequence[str]
) -> Iterator[dict[str, Tensor]]:
    """Record what enters the named submodules in the last forward pass of the block.

    The mapping fills as the model runs. The hooks are gone when the block ends, on
    error too. Raises KeyError for names the model does not have.
    """
    modules = dict(model.named_modules())
    if missing := sorted(set(names) - set(modules)):
        raise KeyError(f"{type(model).__name__} has no submodule named {missing}")
    seen: dict[str, Tensor] = {}

    def keep(
        name: str, _: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]
    ) -> None:
        seen[name] = (*args, *kwargs.values())[0].detach()

    with ExitStack() as stack:
        for name in names:
            handle = modules[name].register_forward_pre_hook(
                partial(keep, name), with_kwargs=True
            )
            stack.callback(handle.remove)
        yield seen

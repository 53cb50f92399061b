"""The sources' own networks, run beside a merge and stopped where it stops."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeAlias

from greenlet import getcurrent, greenlet
from torch import Tensor, nn

from mloss.batches import Batch
from mloss.lockstep import in_lockstep
from mloss.states import State

# What is about to enter a layer, by the index of the batch it is of.
Entering: TypeAlias = Mapping[int, Tensor]


@contextmanager
def companions(
    model: nn.Module,
    states: Sequence[State],
    inputs: Sequence[Batch],
    *,
    layers: Sequence[str],
) -> Iterator[Callable[[str], list[Entering]]]:
    """Run each state's network on the inputs, only as far as the caller asks.

    Yields a function that takes the next of the `layers` and gives what is about to
    enter it in every network, each on its own hidden states. They are held for all
    samples, and of the parameters those of one module a network. The networks end
    with the block, however far they are. Raises ValueError where a network meets the
    layers in another order, or one of them twice.
    """
    copies = [_sharing_tensors(model) for _ in states]
    runs = [
        greenlet(partial(_run, each, state, inputs, layers))
        for each, state in zip(copies, states, strict=True)
    ]

    def at(layer: str) -> list[Entering]:
        stops = [run.switch() for run in runs]
        if met := [stop for stop in stops if not stop or stop[0] != layer]:
            instead = met[0][0] if met[0] else "the end"
            raise ValueError(
                f"a source's network comes to {instead!r} where the merge comes to "
                f"{layer!r}: layers must run once, in one order"
            )
        return [entering for _, entering in stops]

    try:
        yield at
    finally:
        for run in runs:
            run.throw()


def _run(
    model: nn.Module, state: State, inputs: Sequence[Batch], layers: Sequence[str]
) -> None:
    caller = getcurrent().parent

    def stop(layer: str, entering: Entering) -> None:
        caller.switch((layer, entering))

    in_lockstep(
        model, state, inputs, before={layer: partial(stop, layer) for layer in layers}
    )


def _sharing_tensors(model: nn.Module) -> nn.Module:
    """A copy of the modules alone, so that each network can hold other parameters."""
    tensors = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})

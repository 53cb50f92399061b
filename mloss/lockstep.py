"""Several batches going through one network together, one module at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from greenlet import getcurrent, greenlet
from torch import Tensor, nn

from mloss.batches import Batch
from mloss.inference import called
from mloss.states import State
from mloss.streaming import holders, streamed

# Takes what is about to enter a submodule, by the index of the batch it is of.
Gate = Callable[[Mapping[int, Tensor]], None]


def in_lockstep(
    model: nn.Module,
    state: State,
    inputs: Sequence[Batch],
    *,
    before: Mapping[str, Gate] | None = None,
    to_the_end: bool = True,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> list[object]:
    """Run batches with a state's parameters, each of which is read once for them all.

    No batch enters a submodule that holds tensors before all that are on their way to
    it have come there; between modules only their hidden states are held. So a model
    on disk passes through memory module by module, and what a module's parameters are
    to be may be decided when everything before it has run: the gate in `before` is
    shown what is about to enter its submodule, and only then are the parameters looked
    up. Device and precision are those of `mloss.streaming.streamed`. Returns the
    model's outputs, one for each batch, or none where the batches need not go
    `to_the_end` and have come through every gate.

    Raises KeyError for a gate at a submodule the model does not have, and what the
    model or a gate raises; the model is as it was then too.
    """
    gates = dict(before or {})
    modules = dict(model.named_modules())
    if missing := sorted(set(gates) - set(modules)):
        raise KeyError(f"{type(model).__name__} has no submodule named {missing}")
    held = _Held(state)
    stops = {*holders(model), *gates}
    with ExitStack() as stack:
        for name in stops:
            stop = partial(_stopped, getcurrent(), name)
            hook = modules[name].register_forward_pre_hook(stop, with_kwargs=True)
            stack.callback(hook.remove)
        # After the stops, so that parameters are looked up when all have come.
        stack.enter_context(streamed(model, held, device=device, dtype=dtype))
        runs = stack.enter_context(_runs(model, len(inputs)))
        return _conducted(runs, inputs, gates, held, to_the_end=to_the_end)


@dataclass(frozen=True)
class _Stop:
    """A batch that waits before a submodule, and the first thing it waits with."""

    name: str
    entering: Any


def _stopped(
    conductor: greenlet,
    name: str,
    _: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    conductor.switch(_Stop(name, next(iter((*args, *kwargs.values())), None)))


@contextmanager
def _runs(model: nn.Module, count: int) -> Iterator[list[greenlet]]:
    """Runs of the model that have not begun; those not done end with the block."""
    runs = [greenlet(partial(called, model)) for _ in range(count)]
    try:
        yield runs
    finally:
        for run in runs:
            run.throw()


def _conducted(
    runs: Sequence[greenlet],
    inputs: Sequence[Batch],
    gates: Mapping[str, Gate],
    held: "_Held",
    *,
    to_the_end: bool,
) -> list[object]:
    """Outputs of all runs, which go on from stop to stop together."""
    ahead = set(gates)
    at = {index: run.switch(inputs[index]) for index, run in enumerate(runs)}
    while waiting := {i: stop for i, stop in at.items() if isinstance(stop, _Stop)}:
        name = next(iter(waiting.values())).name
        here = {i: stop.entering for i, stop in waiting.items() if stop.name == name}
        if name in gates:
            gates[name](here)
            ahead.discard(name)
            # Others may be on another way to the same gates.
            if not (ahead or to_the_end) and len(here) == len(waiting):
                return []
        held.clear()
        for index in here:
            at[index] = runs[index].switch()
    return [at[index] for index in range(len(runs))]


class _Held(Mapping[str, Tensor]):
    """A state whose entries, once read, are kept until it is cleared."""

    def __init__(self, state: State) -> None:
        self._state, self._read = state, dict[str, Tensor]()

    def clear(self) -> None:
        self._read = {}

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._read:
            self._read[key] = self._state[key]
        return self._read[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)

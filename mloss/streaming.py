"""Running a network whose parameters are read one module at a time."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mloss.averaging import averaged
from mloss.states import LazyState, State, mergeable

# Bytes of averages that are kept: all of a small model, little of a large one.
_KEPT = 2**28


@contextmanager
def streamed(
    model: nn.Module,
    state: State,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Iterator[nn.Module]:
    """Let a model run with the parameters and persistent buffers of a state.

    They are looked up, and moved to the device and precision asked for, when the
    module that holds them runs, and dropped when it is done: a state that reads from
    disk is never in memory as a whole. What the model is called with, and the buffers
    it makes for itself, are moved too. An nn.MultiheadAttention, which uses the
    tensors of a child without calling it, gets those of its children too. The model's
    own tensors, which may be on the meta device, are back when the block ends.
    """
    state = placed(state, device=device, dtype=dtype)
    with ExitStack() as stack:
        for name, module in holders(model).items():
            swap = _Swap(_tensors(module, name), state, device)
            stack.callback(swap.restore)
            before = module.register_forward_pre_hook(swap.load)
            after = module.register_forward_hook(swap.leave)
            stack.callback(before.remove)
            stack.callback(after.remove)
        if device is not None or dtype is not None:
            move = partial(_moved_arguments, device, dtype)
            moved = model.register_forward_pre_hook(move, with_kwargs=True)
            stack.callback(moved.remove)
        yield model


def holders(model: nn.Module) -> dict[str, nn.Module]:
    """Submodules that hold tensors of their own, by name; the model itself is ""."""
    return {name: m for name, m in model.named_modules() if _tensors(m, name)}


def placed(
    state: State,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> State:
    """A state whose entries are moved to a device and a precision when looked up.

    Integers keep their type. Where neither is given, it is the state itself.
    """
    if device is None and dtype is None:
        return state
    return LazyState(state, change=partial(_moved, device=device, dtype=dtype))


def _moved(
    value: Tensor, *, device: torch.device | None, dtype: torch.dtype | None
) -> Tensor:
    return value.to(device=device, dtype=dtype if mergeable(value) else None)


def _moved_arguments(
    device: torch.device | None,
    dtype: torch.dtype | None,
    _: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def move(value: Any) -> Any:
        is_tensor = isinstance(value, Tensor)
        return _moved(value, device=device, dtype=dtype) if is_tensor else value

    return tuple(map(move, args)), {name: move(value) for name, value in kwargs.items()}


class AveragedState(Mapping[str, Tensor]):
    """sum_i w_i theta_i of the sources, entry by entry when it is looked up.

    In float64, rounded to the precision of the base; integers are the base's. As many
    averages as fit in 256 MiB are kept for the next time.
    """

    def __init__(
        self, base: State, sources: Sequence[State], *, weights: Tensor
    ) -> None:
        self._base, self._sources, self._weights = base, sources, weights
        self._kept: dict[str, Tensor] = {}
        self._room = _KEPT

    def __getitem__(self, key: str) -> Tensor:
        if key in self._kept:
            return self._kept[key]
        value = self._base[key]
        average = value
        if mergeable(value):
            each = [source[key] for source in self._sources]
            average = averaged(self._weights, each, like=value)
        if average.nbytes <= self._room:
            self._room -= average.nbytes
            self._kept[key] = average
        return average

    def __iter__(self) -> Iterator[str]:
        return iter(self._base)

    def __len__(self) -> int:
        return len(self._base)


@dataclass(frozen=True)
class _Slot:
    """A place in a module where a tensor belongs, and its name in a state, if any."""

    holder: dict[str, Any]
    key: str
    name: str | None
    is_parameter: bool


def _tensors(module: nn.Module, name: str) -> list[_Slot]:
    """Slots of a module's parameters and buffers, by names of the model."""
    prefix, hidden = f"{name}." if name else "", module._non_persistent_buffers_set
    slots = [
        _Slot(
            holder,
            key,
            None if key in hidden else prefix + key,
            is_parameter=holder is module._parameters,
        )
        for holder in (module._parameters, module._buffers)
        for key, value in holder.items()
        if value is not None
    ]
    if isinstance(module, nn.MultiheadAttention):
        for key, child in module.named_children():
            slots += _tensors(child, prefix + key)
    return slots


class _Swap:
    """Some tensors of a module, exchanged for those of a state while it runs.

    Several runs of the module may be under way at a time (`mloss.lockstep`).
    """

    def __init__(
        self, slots: list[_Slot], state: State, device: torch.device | None
    ) -> None:
        self.slots, self._state, self._device = slots, state, device
        self._own: list[Tensor] = []
        self._running = 0

    def load(self, *_: object) -> None:
        self._running += 1
        if self._running > 1:
            return
        self._own = [slot.holder[slot.key] for slot in self.slots]
        for slot, own in zip(self.slots, self._own, strict=True):
            value = (
                own.to(self._device) if slot.name is None else self._state[slot.name]
            )
            slot.holder[slot.key] = (
                nn.Parameter(value, requires_grad=False) if slot.is_parameter else value
            )

    def leave(self, *_: object) -> None:
        self._running -= 1
        if self._running == 0:
            self.restore()

    def restore(self, *_: object) -> None:
        for slot, own in zip(self.slots, self._own, strict=False):
            slot.holder[slot.key] = own
        self._own = []

"""Running a network whose parameters are read one module at a time."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mloss.states import State, mergeable
from mloss.weights import weighted_sum


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
    disk is never in memory as a whole. An nn.MultiheadAttention, which uses the
    tensors of a child without calling it, gets those of its children too. The model's
    own tensors, which may be on the meta device, are back when the block ends.
    """
    with ExitStack() as stack:
        for name, module in model.named_modules():
            swap = _Swap(_tensors(module, name), state, device, dtype)
            if swap.slots:
                stack.callback(swap.restore)
                before = module.register_forward_pre_hook(swap.load)
                after = module.register_forward_hook(swap.restore)
                stack.callback(before.remove)
                stack.callback(after.remove)
        yield model


class AveragedState(Mapping[str, Tensor]):
    """sum_i w_i theta_i of the sources, entry by entry when it is looked up.

    In float64, rounded to the precision of the base; integers are the base's.
    """

    def __init__(
        self, base: State, sources: list[dict[str, Tensor]], *, weights: Tensor
    ) -> None:
        self._base, self._sources, self._weights = base, sources, weights

    def __getitem__(self, key: str) -> Tensor:
        value = self._base[key]
        if not mergeable(value):
            return value
        each = (source[key].double() for source in self._sources)
        return weighted_sum(self._weights, each).to(value.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._base)

    def __len__(self) -> int:
        return len(self._base)


@dataclass(frozen=True)
class _Slot:
    """A place in a module where one tensor of the state belongs."""

    holder: dict[str, Any]
    key: str
    name: str
    is_parameter: bool


def _tensors(module: nn.Module, name: str) -> list[_Slot]:
    """Slots of a module's parameters and persistent buffers, by names of the model."""
    prefix, hidden = f"{name}." if name else "", module._non_persistent_buffers_set
    slots = [
        _Slot(holder, key, prefix + key, is_parameter=holder is module._parameters)
        for holder in (module._parameters, module._buffers)
        for key, value in holder.items()
        if value is not None and key not in hidden
    ]
    if isinstance(module, nn.MultiheadAttention):
        for key, child in module.named_children():
            slots += _tensors(child, prefix + key)
    return slots


class _Swap:
    """Some tensors of a module, exchanged for those of a state while it runs."""

    def __init__(
        self,
        slots: list[_Slot],
        state: State,
        device: torch.device | None,
        dtype: torch.dtype | None,
    ) -> None:
        self.slots, self._state = slots, state
        self._device, self._dtype = device, dtype
        self._own: list[Tensor] = []

    def load(self, *_: object) -> None:
        self._own = [slot.holder[slot.key] for slot in self.slots]
        for slot in self.slots:
            value = self._state[slot.name]
            dtype = self._dtype if mergeable(value) else None
            value = value.to(device=self._device, dtype=dtype)
            slot.holder[slot.key] = (
                nn.Parameter(value, requires_grad=False) if slot.is_parameter else value
            )

    def restore(self, *_: object) -> None:
        for slot, own in zip(self.slots, self._own, strict=False):
            slot.holder[slot.key] = own
        self._own = []

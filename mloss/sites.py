"""Where a network applies an activation to the output of a linear layer."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from mloss.activations import Activation, identify
from mloss.inference import evaluating

_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d)
_FUNCTIONS = frozenset(
    {
        *(functional.relu, torch.relu, torch.relu_),
        *(torch.Tensor.relu, torch.Tensor.relu_),
        *(torch.tanh, torch.Tensor.tanh, torch.sigmoid, torch.Tensor.sigmoid),
        *(functional.gelu, functional.silu, functional.mish, functional.softplus),
        *(functional.leaky_relu, functional.elu, functional.celu, functional.selu),
        *(functional.relu6, functional.hardtanh, functional.hardswish),
    }
)
_PRODUCTS = frozenset({torch.mul, torch.Tensor.mul, torch.Tensor.mul_})


@dataclass(frozen=True)
class Site:
    """A linear layer and the elementwise activation its output goes straight into.

    `layer` is the name of the submodule; its nodes are the last axis of a Linear and
    the channels of a convolution. `activation` is what the network really applies;
    `activation_name` is its name in `mloss.activations`, found by value, or else that
    of its class or function.
    """

    layer: str
    activation: Activation
    activation_name: str


def find_sites(model: nn.Module, example: Tensor) -> tuple[Site, ...]:
    """Sites of a network in forward order, traced in one forward pass of `example`.

    Looks for an nn.Linear, nn.Conv1d or nn.Conv2d whose output goes into an
    activation: a function of torch or a module without parameters that maps each
    element on its own. Not seen: an activation written out in the network's own
    forward, clamp(min=0) among them (put it in a module), or one with parameters
    (PReLU). A layer whose output also enters a product or a second activation is not
    a site, since what acts on it is then more than the one function. The model runs
    in evaluation mode and keeps its training flags; no hook stays.

    Raises TypeError for what is no model or no tensor, and ValueError where there is
    no site or the layer of a site runs more than once in a forward pass.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    if not isinstance(example, Tensor):
        raise TypeError(f"example must be a tensor, got {type(example).__name__}")
    device = next((p.device for p in model.parameters()), example.device)
    trace = _Trace()
    with evaluating(model):
        with trace.hooked(model), trace:
            model(example.to(device))
        sites = trace.sites()
    if not sites:
        raise ValueError(
            f"{type(model).__name__} has no activation site: no nn.Linear, nn.Conv1d "
            "or nn.Conv2d whose output goes straight into an elementwise activation"
        )
    return sites


@dataclass(frozen=True)
class _OnACopy:
    """An activation that may work in place, applied so that it leaves h as it was."""

    function: Callable[..., Any]
    rest: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, h: Tensor) -> Tensor:
        result: Tensor = self.function(h.clone(), *self.rest, **self.options)
        return result

    @property
    def name(self) -> str:
        """Its name by value, or else that of its class or function."""
        kind = type(self.function).__name__
        unknown: str = getattr(self.function, "__name__", kind)
        return identify(self) or unknown


class _Trace(TorchFunctionMode):
    """Follows the outputs of linear layers into the functions that take them."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: Counter[str] = Counter()
        # The tensor is kept, so that its id stays its own.
        self._origins: dict[int, tuple[str, Tensor]] = {}
        self._found: dict[str, list[_OnACopy]] = {}
        self._multiplied: set[str] = set()
        self._inside: nn.Module | None = None

    def sites(self) -> tuple[Site, ...]:
        """Layers with one activation and no product, in forward order."""
        if repeated := [layer for layer in self._found if self._calls[layer] > 1]:
            raise ValueError(
                f"layer {repeated[0]!r} runs more than once in one forward pass"
            )
        return tuple(
            Site(layer, activations[0], activations[0].name)
            for layer, activations in self._found.items()
            if len(activations) == 1 and layer not in self._multiplied
        )

    def hooked(self, model: nn.Module) -> ExitStack:
        """Hooks on every submodule that a site can involve, removed on exit."""
        stack = ExitStack()
        for name, module in model.named_modules():
            if isinstance(module, _LINEAR):
                mark = partial(self._mark, name)
                stack.callback(module.register_forward_hook(mark).remove)
            elif not _holds_tensors(module) and not isinstance(module, nn.Sequential):
                enter = module.register_forward_pre_hook(self._enter, with_kwargs=True)
                leave = module.register_forward_hook(self._leave, with_kwargs=True)
                stack.callback(enter.remove)
                stack.callback(leave.remove)
        return stack

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        options = dict(kwargs or {})
        result = func(*args, **options)
        if self._inside is None and func in _PRODUCTS:
            factors = (*args, *options.values())
            self._multiplied.update(filter(None, map(self._layer_of, factors)))
        elif self._inside is None and func in _FUNCTIONS:
            value = args[0] if args else options.pop("input", None)
            self._consume(value, _OnACopy(func, args[1:], options))
            self._forget_in_place(value, result)
        return result

    def _mark(self, name: str, *call: Any) -> None:
        *_, out = call
        self._calls[name] += 1
        self._origins[id(out)] = (name, out)

    def _enter(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        values = (*args, *kwargs.values())
        # What a submodule of an activation does is that activation's own affair.
        if self._inside is None and len(values) == 1 and self._layer_of(values[0]):
            activation = _OnACopy(module)
            if _maps_elementwise(activation, like=values[0]):
                self._inside = module
                self._consume(values[0], activation)

    def _leave(
        self,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        out: object,
    ) -> None:
        if self._inside is module:
            self._inside = None
            (value,) = (*args, *kwargs.values())
            self._forget_in_place(value, out)

    def _consume(self, value: object, activation: _OnACopy) -> None:
        if layer := self._layer_of(value):
            self._found.setdefault(layer, []).append(activation)

    def _layer_of(self, value: object) -> str | None:
        return self._origins.get(id(value), (None,))[0]

    def _forget_in_place(self, value: object, result: object) -> None:
        # After relu_ the tensor is no longer the output of the linear layer.
        if result is value:
            self._origins.pop(id(value), None)


def _holds_tensors(module: nn.Module) -> bool:
    return any(True for _ in (*module.parameters(), *module.buffers()))


def _maps_elementwise(function: Activation, *, like: Tensor) -> bool:
    """Whether a function bends, and moves only the element that was moved."""
    shape = (8, *like.shape[1:])
    x = torch.linspace(-8, 8, math.prod(shape), dtype=torch.float64, device=like.device)
    y = function(x.reshape(shape))
    if not isinstance(y, Tensor) or y.shape != shape:
        return False
    middle = len(x) // 2
    moved = x.clone()
    moved[middle] += 1
    changed = (function(moved.reshape(shape)) != y).flatten()
    changed[middle] = False
    line = y.flatten()[0] + (x - x[0]) * (y.flatten()[-1] - y.flatten()[0]) / 16
    bends = (y.flatten() - line).abs().max() > 1e-6
    return bool(bends and not changed.any())

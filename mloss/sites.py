"""Where a network applies an activation to the output of a linear layer."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from mloss.activations import Activation, identify
from mloss.batches import Batch, batches
from mloss.inference import called, evaluating

_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
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
    """A linear layer and the elementwise activation that acts on its output.

    `layer` is the name of the submodule; its nodes are the last axis of a Linear and
    the channels of a convolution. `activation` is what the network really applies;
    `activation_name` is its name in `mloss.activations`, found by value, or else that
    of its class or function. `norm` is a batch normalisation in between, which in
    evaluation is affine node by node. `up` is the linear layer whose output the
    activation's is multiplied by, as in f(gate(x)) * up(x), on the same input.
    `fed_by` is the normalisation (LayerNorm, RMSNorm) whose output is that input.
    """

    layer: str
    activation: Activation
    activation_name: str
    norm: str | None = None
    up: str | None = None
    fed_by: str | None = None

    @property
    def modules(self) -> tuple[str, ...]:
        """Submodules whose rows belong to the nodes, in the order they are applied."""
        return tuple(filter(None, (self.layer, self.norm, self.up)))


def find_sites(model: nn.Module, example: Batch) -> tuple[Site, ...]:
    """Sites of a network in forward order, traced in one forward pass of `example`.

    Looks for an nn.Linear, nn.Conv1d or nn.Conv2d whose output, batch-normalised or
    not, goes into an activation: a function of torch or a module without parameters
    that maps each element on its own; and on from there into a product with another
    linear layer's output. Not seen: an activation written out in the network's own
    forward, clamp(min=0) among them (put it in a module), or one with parameters
    (PReLU). A layer whose own output also enters a product or a second activation is
    not a site, since what acts on it is then more than the one function. The model
    runs in evaluation mode and keeps its training flags; no hook stays.

    Raises TypeError for what is no model or no tensor, and ValueError where there is
    no site or the layer of a site runs more than once in a forward pass.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    (batch,) = batches(example)
    trace = _Trace()
    with evaluating(model):
        with trace.hooked(model), trace:
            called(model, batch)
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
        return self._applied(h.clone() if self._in_place else h)

    def _applied(self, h: Tensor) -> Tensor:
        result: Tensor = self.function(h, *self.rest, **self.options)
        return result

    @cached_property
    def _in_place(self) -> bool:
        before = torch.linspace(-8, 8, 33, dtype=torch.float64)
        after = before.clone()
        self._applied(after)
        return not torch.equal(before, after)

    @property
    def name(self) -> str:
        """Its name by value, or else that of its class or function."""
        kind = type(self.function).__name__
        unknown: str = getattr(self.function, "__name__", kind)
        return identify(self) or unknown


@dataclass(frozen=True)
class _Origin:
    """Which linear layer a tensor comes from, and what has acted on it since."""

    layer: str
    norm: str | None = None
    activated: bool = False


class _Trace(TorchFunctionMode):
    """Follows the outputs of linear layers into the functions that take them."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: Counter[str] = Counter()
        # The tensor is kept, so that its id stays its own.
        self._origins: dict[int, tuple[_Origin, Tensor]] = {}
        self._inputs: dict[str, Tensor] = {}
        self._normalised: dict[int, tuple[str, Tensor]] = {}
        self._fed_by: dict[str, str] = {}
        self._found: dict[_Origin, list[_OnACopy]] = {}
        self._multiplied: set[str] = set()
        self._ups: dict[str, list[str]] = {}
        self._inside: nn.Module | None = None

    def sites(self) -> tuple[Site, ...]:
        """Layers with one activation and no product before it, in forward order."""
        layers = Counter(origin.layer for origin in self._found)
        if repeated := [layer for layer in layers if self._calls[layer] > 1]:
            raise ValueError(
                f"layer {repeated[0]!r} runs more than once in one forward pass"
            )
        return tuple(
            Site(
                o.layer,
                f[0],
                f[0].name,
                norm=o.norm,
                up=self._up(o.layer),
                fed_by=self._fed_by.get(o.layer),
            )
            for o, f in self._found.items()
            if len(f) == layers[o.layer] == 1 and o.layer not in self._multiplied
        )

    def hooked(self, model: nn.Module) -> ExitStack:
        """Hooks on every submodule that a site can involve, removed on exit."""
        stack = ExitStack()
        for name, module in model.named_modules():
            if isinstance(module, _LINEAR + _NORMS):
                mark = partial(self._mark, name)
                kept = module.register_forward_hook(mark, with_kwargs=True)
                stack.callback(kept.remove)
            elif "Norm" in type(module).__name__:
                note = partial(self._note_normalised, name)
                stack.callback(module.register_forward_hook(note).remove)
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
            self._multiply([*args, *options.values()])
        elif self._inside is None and func in _FUNCTIONS:
            value = args[0] if args else options.pop("input", None)
            self._consume(value, _OnACopy(func, args[1:], options), result)
        return result

    def _mark(
        self,
        name: str,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        out: Tensor,
    ) -> None:
        value = (*args, *kwargs.values())[0]
        if isinstance(module, _NORMS):
            before = self._raw(value)
            if before is not None and before.norm is None:
                self._keep(_Origin(before.layer, norm=name), out)
        else:
            self._calls[name] += 1
            self._inputs[name] = value
            if id(value) in self._normalised:
                self._fed_by[name] = self._normalised[id(value)][0]
            self._keep(_Origin(name), out)

    def _note_normalised(self, name: str, *call: Any) -> None:
        *_, out = call
        self._normalised[id(out)] = (name, out)

    def _enter(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        values = (*args, *kwargs.values())
        # What a submodule of an activation does is that activation's own affair.
        unary = self._inside is None and len(values) == 1 and self._raw(values[0])
        if unary and _maps_elementwise(_OnACopy(module), like=values[0]):
            self._inside = module

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
            self._consume(value, _OnACopy(module), out)

    def _consume(self, value: object, activation: _OnACopy, result: object) -> None:
        origin = self._raw(value)
        if origin is None:
            return
        self._found.setdefault(origin, []).append(activation)
        # After relu_ the tensor is no longer the output of the linear layer.
        if isinstance(result, Tensor):
            self._keep(replace(origin, activated=True), result)

    def _multiply(self, factors: Sequence[object]) -> None:
        origins = [origin for f in factors if (origin := self._origin(f))]
        raw = [origin.layer for origin in origins if not origin.activated]
        gates = [origin.layer for origin in origins if origin.activated]
        if len(gates) == len(raw) == 1 and self._share_input(gates[0], raw[0]):
            self._ups.setdefault(gates[0], []).append(raw[0])
        self._multiplied.update(raw)

    def _share_input(self, first: str, second: str) -> bool:
        return self._inputs[first] is self._inputs[second]

    def _up(self, gate: str) -> str | None:
        ups = self._ups.get(gate, [])
        return ups[0] if len(ups) == 1 else None

    def _keep(self, origin: _Origin, value: Tensor) -> None:
        self._origins[id(value)] = (origin, value)

    def _raw(self, value: object) -> _Origin | None:
        """Where a tensor comes from that no activation has acted on yet."""
        origin = self._origin(value)
        return None if origin is None or origin.activated else origin

    def _origin(self, value: object) -> _Origin | None:
        return self._origins.get(id(value), (None,))[0]


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

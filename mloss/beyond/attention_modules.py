"""Where a network has attention, and what its heads put out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from mloss.batches import Batch, size
from mloss.beyond.calls import Call, recorded_calls, repeated
from mloss.inference import called, evaluating
from mloss.outputs import check_finite
from mloss.pre_activations import own_state
from mloss.states import State
from mloss.streaming import streamed

# What the linear layers of queries, keys and values are called.
_PROJECTIONS = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("q_lin", "k_lin", "v_lin"),
)
_HEAD_WIDTHS = ("head_dim", "attention_head_size")
# Two factors with as few as the 8 bits of bfloat16, of which TF32 has 11.
_FACTORS_ROUNDED = 2.0**-7


@dataclass(frozen=True)
class Attention:
    """An attention module, its heads, and the linear layer that projects them.

    `values` is the child that makes the values, empty for an nn.MultiheadAttention,
    which holds all three projections in one. `projection` is W_o, within the module
    or after it, by its name in the model.
    """

    name: str
    heads: int
    values: str
    projection: str

    @property
    def own_projection(self) -> str | None:
        """W_o by its name in the module; None where it comes after the module."""
        inside = self.projection.startswith(f"{self.name}.")
        return self.projection.removeprefix(f"{self.name}.") if inside else None


def find_attention(
    model: nn.Module, state: State, example: Batch
) -> tuple[tuple[Attention, ...], dict[str, str]]:
    """Attention modules of a network, and the reason for each that is not covered.

    Covered are nn.MultiheadAttention and modules with linear children `q_proj`,
    `k_proj`, `v_proj` (or `query`, `key`, `value`, or `q_lin` and so on) that state
    the width of a head. The output projection is traced in one forward pass of
    `example` with the parameters of `state`: the linear layer whose output the module
    returns, or else the one that takes what the module returns. That the first is all
    that is done to the heads' outputs is checked by value. Other modules with
    Attention in their class's name are listed as not covered.
    """
    modules = dict(model.named_modules())
    candidates = [name for name, module in modules.items() if _has_projections(module)]
    linears = [n for n, module in modules.items() if isinstance(module, nn.Linear)]
    found, not_covered = [], _unknown(modules, candidates)
    with evaluating(model):
        with (
            streamed(model, state),
            recorded_calls(model, {*candidates, *linears}) as calls,
        ):
            called(model, example)
        for name in candidates:
            result = _described(model, name, calls, samples=size(example))
            if isinstance(result, Attention):
                result = _verified(model, state, result, calls[name][0])
            if isinstance(result, Attention):
                found.append(result)
            else:
                not_covered[name] = result
    return tuple(found), not_covered


def head_outputs(
    model: nn.Module, attention: Attention, own: State, call: Call
) -> Float[Tensor, "sample token head entry"]:
    """Outputs of the heads in a recorded call, with the module's parameters replaced.

    With W_o = 1 and no bias the module returns its heads' outputs side by side.
    Computed in the precision of the model, returned in float64.
    """
    module, inner = model.get_submodule(attention.name), attention.own_projection
    parameters = dict(own)
    if inner is not None:
        weight = own[f"{inner}.weight"]
        parameters[f"{inner}.weight"] = torch.eye(weight.shape[1]).to(weight)
        if (bias := f"{inner}.bias") in own:
            parameters[bias] = own[bias].new_zeros(weight.shape[1])
    outputs = _samples_first(module, repeated(module, parameters, call))
    return outputs.double().reshape(*outputs.shape[:-1], attention.heads, -1)


def with_values(attention: Attention, own: State, other: State) -> dict[str, Tensor]:
    """Parameters of an attention module with those that make its values replaced."""
    mixed = dict(own)
    if attention.values:
        prefix = f"{attention.values}."
        return mixed | {key: other[key] for key in own if key.startswith(prefix)}
    for key in ("v_proj_weight", "bias_v"):
        if key in own:
            mixed[key] = other[key]
    for key in ("in_proj_weight", "in_proj_bias"):
        if key in own:
            queries_and_keys = 2 * len(own[key]) // 3
            mixed[key] = torch.cat(
                [own[key][:queries_and_keys], other[key][queries_and_keys:]]
            )
    return mixed


def projection_of(attention: Attention, state: State) -> dict[str, Tensor]:
    """Weight and bias of W_o in a whole state, in float64."""
    names = {n: f"{attention.projection}.{n}" for n in ("weight", "bias")}
    return {n: state[key].double() for n, key in names.items() if key in state}


def projected(
    projection: State, heads: Float[Tensor, "sample token head entry"]
) -> Float[Tensor, "sample token node"]:
    """W_o heads + b, with the heads side by side."""
    return linear(heads.flatten(2), projection["weight"], projection.get("bias"))


def _has_projections(module: nn.Module) -> bool:
    return isinstance(module, nn.MultiheadAttention) or _values_child(module) != ""


def _values_child(module: nn.Module) -> str:
    children = dict(module.named_children())
    for names in _PROJECTIONS:
        if all(isinstance(children.get(name), nn.Linear) for name in names):
            return names[-1]
    return ""


def _unknown(
    modules: Mapping[str, nn.Module], candidates: Iterable[str]
) -> dict[str, str]:
    """Modules that call themselves attention but are, hold or lie in no candidate."""
    known = set(candidates)
    return {
        name: "its query, key and value projections are not recognised"
        for name, module in modules.items()
        if "Attention" in type(module).__name__
        and any(True for _ in module.parameters())
        and not any(_related(name, other) for other in known)
    }


def _related(name: str, other: str) -> bool:
    return f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}.")


def _described(
    model: nn.Module, name: str, calls: Mapping[str, Sequence[Call]], *, samples: int
) -> Attention | str:
    """What is known of a candidate, or what speaks against it."""
    module, times = model.get_submodule(name), len(calls[name])
    if times != 1:
        return f"it runs {times} times in one forward pass"
    output = calls[name][0].output
    if output.ndim != 3 or len(_samples_first(module, output)) != samples:
        return f"its output {list(output.shape)} is not [sample, token, feature]"
    projection = _projection(module, name, calls)
    if projection is None:
        return "no linear layer projects what its heads put out"
    width = _linear(model, projection).in_features
    stated = [getattr(module, option, None) for option in _HEAD_WIDTHS]
    head_width = next((n for n in stated if isinstance(n, int)), 0)
    if head_width < 1 or width % head_width:
        return f"it does not state a head_dim that divides its width of {width}"
    return Attention(name, width // head_width, _values_child(module), projection)


def _projection(
    module: nn.Module, name: str, calls: Mapping[str, Sequence[Call]]
) -> str | None:
    if isinstance(module, nn.MultiheadAttention):
        return f"{name}.out_proj" if name else "out_proj"
    output, of_linears = calls[name][0].output, _other_calls(calls, name)
    inside = (other for other, call in of_linears if call.output is output)
    after = (other for other, call in of_linears if call.input is output)
    return next(inside, None) or next(after, None)


def _other_calls(
    calls: Mapping[str, Sequence[Call]], name: str
) -> list[tuple[str, Call]]:
    return [(other, c) for other, each in calls.items() if other != name for c in each]


def _linear(model: nn.Module, name: str) -> nn.Linear:
    module = model.get_submodule(name)
    assert isinstance(module, nn.Linear)
    return module


def _verified(
    model: nn.Module, state: State, attention: Attention, call: Call
) -> Attention | str:
    """The same attention if the module returns W_o heads + b, to rounding."""
    if attention.own_projection is None:
        return attention
    own = own_state(model, attention.name, state)
    heads = head_outputs(model, attention, own, call)
    module = model.get_submodule(attention.name)
    output = _samples_first(module, repeated(module, own, call)).double()
    check_finite(output)
    projection = projection_of(attention, state)
    magnitudes = {name: value.abs() for name, value in projection.items()}
    size = projected(magnitudes, heads.abs())
    # A sum of `width` products, each rounded, and the bias; TF32 rounds factors too.
    width, eps = heads.shape[2:].numel(), torch.finfo(call.output.dtype).eps
    coarse = torch.get_float32_matmul_precision() != "highest"
    rounding = (width + 2) * eps + (_FACTORS_ROUNDED if coarse else 0.0)
    if ((output - projected(projection, heads)).abs() <= rounding * size).all():
        return attention
    return "its output is not the projection of its heads' outputs"


def _samples_first(module: nn.Module, output: Tensor) -> Tensor:
    first = not isinstance(module, nn.MultiheadAttention) or module.batch_first
    return output if first else output.transpose(0, 1)

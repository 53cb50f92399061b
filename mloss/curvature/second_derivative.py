"""The second derivative of a network's output along directions in its parameters."""

import warnings
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import jvp

from mloss.batches import Batch
from mloss.curvature.elementary import WrittenOut
from mloss.outputs import check_finite, flat_output
from mloss.states import State
from mloss.weights import weighted_sum

Method = Literal["forward", "differences"]

# Steps and weights: sum of w (f(step) - f(0)) / h^2 is f'' up to h^4 f^(6) / 90.
_STENCIL: Mapping[int, float] = {-2: -1 / 12, -1: 4 / 3, 1: 4 / 3, 2: -1 / 12}


def second_derivative(
    model: nn.Module,
    centre: State,
    batch: Batch,
    *,
    first: State,
    second: State | None = None,
    method: Method = "forward",
) -> Float[Tensor, "sample entry"]:
    """D^2 f(centre; x)[first, second] in float64, f the flattened output of `model`.

    A direction holds floating-point entries of the state, in their shapes and dtypes,
    and is zero elsewhere; `second` is by default `first`. The model is to be in
    evaluation mode.

    "forward" nests two forward-mode derivatives: exact to the rounding of the model's
    precision, float32 included, for the work of 8 matrix products in place of one.
    Where a direction touches late layers only, the early ones are not differentiated.
    A kink (ReLU) has no curvature there, and an operation that torch differentiates
    wrongly goes unnoticed: see `check_forward_mode`.

    "differences" takes 5 outputs, 9 where the directions differ, at steps of 1/256 of
    a direction in float64 and of 1/16 in lower precision. In float64 it is good to
    about 1e-6; in float32, or where a model computes in float32 by itself, rounding
    can exceed a small curvature.

    Raises ValueError for another method and an output that is not finite.
    """
    check_method(method)
    second = first if second is None else second
    with torch.no_grad():
        if not first or not second:
            return torch.zeros_like(flat_output(model, centre, batch)).double()
        route = _nested if method == "forward" else _by_differences
        result = route(model, centre, batch, first, second).double()
    check_finite(result)
    return result


def check_method(method: str) -> None:
    """Raise ValueError for what is no method of `second_derivative`."""
    if method not in ("forward", "differences"):
        raise ValueError(f"method must be 'forward' or 'differences', got {method!r}")


def _nested(
    model: nn.Module, centre: State, batch: Batch, first: State, second: State
) -> Tensor:
    def slope(along_second: dict[str, Tensor]) -> Tensor:
        point = {**centre, **along_second}

        def output(along_first: dict[str, Tensor]) -> Tensor:
            return flat_output(model, {**point, **along_first}, batch)

        return _directional(output, point, first)

    with WrittenOut(), warnings.catch_warnings():
        # torch.func.jvp scripts its own decompositions on first use.
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
        return _directional(slope, centre, second)


def _directional(
    function: Callable[[dict[str, Tensor]], Tensor], point: State, direction: State
) -> Tensor:
    """Derivative of a function of some entries of a state, along a direction."""
    start = {key: point[key] for key in direction}
    slope: Tensor = jvp(function, (start,), (dict(direction),))[1]
    return slope


def _by_differences(
    model: nn.Module, centre: State, batch: Batch, first: State, second: State
) -> Tensor:
    here = flat_output(model, centre, batch)
    step = 2.0**-8 if here.dtype == torch.float64 else 2.0**-4

    def curvature(direction: State) -> Tensor:
        def change(steps: int) -> Tensor:
            moved = moved_by(steps * step, direction, start=centre)
            return (flat_output(model, moved, batch) - here).double()

        weights = torch.tensor(list(_STENCIL.values()), dtype=torch.float64)
        return weighted_sum(weights, map(change, _STENCIL)) / step**2

    if first is second:
        return curvature(first)
    ahead, back = (moved_by(sign, second, start=first) for sign in (1, -1))
    return (curvature(ahead) - curvature(back)) / 4


def moved_by(length: float, direction: State, *, start: State) -> dict[str, Tensor]:
    """start + length * direction, where an entry that either lacks is zero."""
    moved = {key: length * value for key, value in direction.items()}
    return {**start, **{k: start[k] + v if k in start else v for k, v in moved.items()}}

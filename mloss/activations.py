"""Elementwise activations in torch, by the names of `theory.activations`."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

Activation = Callable[[Tensor], Tensor]

# Two activations agree when they differ by less than this on [-8, 8]. The closest
# named pair, gelu and gelu_tanh, differ by 5e-4; float64 rounding is near 1e-15.
_SAME = 1e-9


def quick_gelu(x: Tensor) -> Tensor:
    """X sigmoid(1.702 x), the activation of OpenAI's CLIP."""
    return x * torch.sigmoid(1.702 * x)


def identity(x: Tensor) -> Tensor:
    """X itself: the linear network, whose M-Loss is zero."""
    return x


ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        "relu": functional.relu,
        "leaky_relu": partial(functional.leaky_relu, negative_slope=0.01),
        "prelu": partial(functional.leaky_relu, negative_slope=0.25),
        "relu6": functional.relu6,
        "hard_swish": functional.hardswish,
        "elu": functional.elu,
        "selu": functional.selu,
        "gelu": functional.gelu,
        "gelu_tanh": partial(functional.gelu, approximate="tanh"),
        "quick_gelu": quick_gelu,
        "silu": functional.silu,
        "softplus": functional.softplus,
        "mish": functional.mish,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "identity": identity,
    }
)


def resolve(activation: str | Activation) -> Activation:
    """Return the function of a named activation, or a callable as it is.

    Raises ValueError for a name that is not in `ACTIVATIONS`, and TypeError for
    anything that is neither a name nor callable.
    """
    if callable(activation):
        return activation
    if not isinstance(activation, str):
        raise TypeError(
            f"activation must be a name or a callable, got {type(activation).__name__}"
        )
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"activation {activation!r} is not one of: {known}")
    return ACTIVATIONS[activation]


def same_function(first: Activation, second: Activation) -> bool:
    """Whether two activations agree on a float64 grid over [-8, 8]."""
    x = torch.linspace(-8, 8, 321, dtype=torch.float64)
    return bool((first(x.clone()) - second(x.clone())).abs().max() < _SAME)


def identify(activation: Activation) -> str | None:
    """Name of the activation in `ACTIVATIONS` with the same values, if there is one."""
    matches = (n for n, f in ACTIVATIONS.items() if same_function(f, activation))
    return next(matches, None)

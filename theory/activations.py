"""Activations as the theory sees them: f, f', and the points where f' can turn.

An activation is known to this package by its function, its derivative, its
kinks (where f' jumps), its inflections (where f'' changes sign) and its slopes
at infinity. Every closed form and bound follows from these.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, pi, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr

Array = NDArray[np.float64]
Elementwise = Callable[[Array], Array]


@dataclass(frozen=True)
class Activation:
    """An elementwise function R -> R whose derivative has bounded variation.

    `function` and `derivative` map float64 arrays elementwise. `kinks` are the
    points where f' jumps, `inflections` the points where f'' changes sign, both
    in increasing order; `slopes` are the limits of f' at minus and plus infinity.
    """

    name: str
    function: Elementwise
    derivative: Elementwise
    slopes: tuple[float, float]
    inflections: tuple[float, ...] = ()
    kinks: tuple[float, ...] = ()

    def __call__(self, x: Array) -> Array:
        """Apply the function elementwise."""
        return self.function(x)


class LeakyReLU(Activation):
    """x for x > 0 and negative_slope * x below: ReLU at slope 0, the identity at 1.

    Raises ValueError for a slope that is not finite.
    """

    negative_slope: float

    def __init__(self, negative_slope: float = 0.01, *, name: str = "leaky_relu"):
        slope = float(negative_slope)
        if not isfinite(slope):
            raise ValueError(f"negative_slope must be finite, got {negative_slope}")
        super().__init__(
            name=name,
            function=lambda x: np.where(x > 0, x, slope * x),
            derivative=lambda x: np.where(x > 0, 1.0, slope),
            slopes=(slope, 1.0),
            kinks=(0.0,),
        )
        object.__setattr__(self, "negative_slope", slope)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, LeakyReLU) and self.negative_slope == other.negative_slope
        )

    def __hash__(self) -> int:
        return hash((LeakyReLU, self.negative_slope))


def _phi(x: Array) -> Array:
    return np.exp(-(x**2) / 2) / sqrt(2 * pi)


def _sigmoid_weighted(name: str, scale: float) -> Activation:
    """x * sigmoid(scale * x): SiLU at scale 1, quick-GELU at 1.702."""

    def derivative(x: Array) -> Array:
        gate = expit(scale * x)
        return gate + scale * x * gate * (1 - gate)

    # Where y tanh(y / 2) = 2, for y = scale * x.
    turn = 2.39935728051546766 / scale
    return Activation(
        name=name,
        function=lambda x: x * expit(scale * x),
        derivative=derivative,
        slopes=(0.0, 1.0),
        inflections=(-turn, turn),
    )


_TANH_SCALE = sqrt(2 / pi)
_TANH_CUBIC = 0.044715


def _gelu_tanh_derivative(x: Array) -> Array:
    t: Array = np.tanh(_TANH_SCALE * (x + _TANH_CUBIC * x**3))
    inner = _TANH_SCALE * (1 + 3 * _TANH_CUBIC * x**2)
    return (1 + t) / 2 + x * (1 - t**2) * inner / 2


def _softplus(x: Array) -> Array:
    return np.logaddexp(0.0, x)


def _mish_derivative(x: Array) -> Array:
    t: Array = np.tanh(_softplus(x))
    return t + x * (1 - t**2) * expit(x)


RELU = LeakyReLU(0.0, name="relu")
GELU = Activation(
    name="gelu",
    function=lambda x: x * ndtr(x),
    derivative=lambda x: ndtr(x) + x * _phi(x),
    slopes=(0.0, 1.0),
    inflections=(-sqrt(2), sqrt(2)),
)
GELU_TANH = Activation(
    name="gelu_tanh",
    function=lambda x: x / 2 * (1 + np.tanh(_TANH_SCALE * (x + _TANH_CUBIC * x**3))),
    derivative=_gelu_tanh_derivative,
    slopes=(0.0, 1.0),
    inflections=(-1.41850400879082836, 1.41850400879082836),
)
SOFTPLUS = Activation(
    name="softplus", function=_softplus, derivative=expit, slopes=(0.0, 1.0)
)
MISH = Activation(
    name="mish",
    function=lambda x: x * np.tanh(_softplus(x)),
    derivative=_mish_derivative,
    slopes=(0.0, 1.0),
    inflections=(-2.25637639636079312, 1.49057117948542846),
)
TANH = Activation(
    name="tanh",
    function=np.tanh,
    derivative=lambda x: 1 - np.tanh(x) ** 2,
    slopes=(0.0, 0.0),
    inflections=(0.0,),
)

NAMED: dict[str, Activation] = {
    activation.name: activation
    for activation in (
        RELU,
        LeakyReLU(),
        GELU,
        GELU_TANH,
        _sigmoid_weighted("quick_gelu", 1.702),
        _sigmoid_weighted("silu", 1.0),
        SOFTPLUS,
        MISH,
        TANH,
        LeakyReLU(1.0, name="identity"),
    )
}


def resolve(activation: str | Activation) -> Activation:
    """Return the activation itself, or the one of that name.

    Raises ValueError for an unknown name, TypeError for anything else.
    """
    if isinstance(activation, Activation):
        return activation
    if not isinstance(activation, str):
        raise TypeError(
            f"activation must be a name or a theory.Activation, got {activation!r}"
        )
    if activation not in NAMED:
        raise ValueError(
            f"unknown activation {activation!r}; known: {', '.join(NAMED)}"
        )
    return NAMED[activation]

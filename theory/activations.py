"""Activations as the theory sees them: f, f', f'', and where they are not smooth.

An activation is known to this package by its function, its first two derivatives,
its kinks (where f' or f'' jumps), its inflections (where f'' changes sign), its slopes
at infinity and its reach, beyond which it is a straight line. Every expectation and
bound follows from these. `theory.analysis` finds them for a bare function.
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

    `function`, `derivative` and `curvature` (f'' away from kinks) map float64 arrays
    elementwise. `slopes` are the limits of f' at minus and plus infinity, `reach` the
    interval outside which f'' is below 1e-17. `inflections` are the points where f''
    changes sign, `kinks` those where f' or f'' jumps; both increase.
    """

    name: str
    function: Elementwise
    derivative: Elementwise
    curvature: Elementwise
    slopes: tuple[float, float]
    reach: tuple[float, float]
    inflections: tuple[float, ...] = ()
    kinks: tuple[float, ...] = ()

    def __call__(self, x: Array) -> Array:
        """Apply the function elementwise."""
        return self.function(x)

    def bends_one_way(self) -> bool:
        """Whether f is convex or concave, so that D needs no absolute value."""
        middle = np.array([sum(self.reach) / 2])
        signs = {*np.sign(self.jumps), *np.sign(self.curvature(middle))} - {0.0}
        return not self.inflections and len(signs) <= 1

    @property
    def jumps(self) -> tuple[float, ...]:
        """By how much f' jumps at each kink."""
        sides = [np.nextafter(c, [-np.inf, np.inf]) for c in self.kinks]
        return tuple(float(np.diff(self.derivative(side))[0]) for side in sides)


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
            curvature=np.zeros_like,
            slopes=(slope, 1.0),
            reach=(0.0, 0.0),
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


def _bell(x: Array) -> Array:
    """sigmoid'(x), without the cancellation of 1 - sigmoid."""
    return expit(x) * expit(-x)


def _sigmoid_weighted(name: str, scale: float) -> Activation:
    """x * sigmoid(scale * x): SiLU at scale 1, quick-GELU at 1.702."""

    def derivative(x: Array) -> Array:
        return expit(scale * x) + scale * x * _bell(scale * x)

    def curvature(x: Array) -> Array:
        y = scale * x
        return scale * _bell(y) * (2 - y * np.tanh(y / 2))

    turn = 2.39935728051546766 / scale  # where y tanh(y / 2) = 2, for y = scale * x
    return Activation(
        name=name,
        function=lambda x: x * expit(scale * x),
        derivative=derivative,
        curvature=curvature,
        slopes=(0.0, 1.0),
        reach=(-44 / scale, 44 / scale),
        inflections=(-turn, turn),
    )


_TANH_SCALE = sqrt(2 / pi)
_TANH_CUBIC = 0.044715


def _gelu_tanh_gate(x: Array) -> tuple[Array, Array, Array]:
    """tanh(y) of y = sqrt(2/pi) (x + 0.044715 x^3), with its first two derivatives."""
    y = _TANH_SCALE * (x + _TANH_CUBIC * x**3)
    slope = _TANH_SCALE * (1 + 3 * _TANH_CUBIC * x**2)
    bend = _TANH_SCALE * 6 * _TANH_CUBIC * x
    gate, bell = np.tanh(y), 4 * _bell(2 * y)
    return gate, bell * slope, bell * (bend - 2 * gate * slope**2)


def _gelu_tanh_derivative(x: Array) -> Array:
    gate, first, _ = _gelu_tanh_gate(x)
    return (1 + gate) / 2 + x * first / 2


def _gelu_tanh_curvature(x: Array) -> Array:
    _, first, second = _gelu_tanh_gate(x)
    return first + x * second / 2


def _softplus(x: Array) -> Array:
    return np.logaddexp(0.0, x)


def _mish_gate(x: Array) -> tuple[Array, Array, Array]:
    """tanh(softplus(x)), with its first two derivatives."""
    gate = np.tanh(_softplus(x))
    first = 4 * _bell(2 * _softplus(x)) * expit(x)
    return gate, first, first * (expit(-x) - 2 * gate * expit(x))


def _mish_derivative(x: Array) -> Array:
    gate, first, _ = _mish_gate(x)
    return gate + x * first


def _mish_curvature(x: Array) -> Array:
    _, first, second = _mish_gate(x)
    return 2 * first + x * second


def _exponential_linear(name: str, scale: float, alpha: float) -> Activation:
    """scale * x for x > 0 and scale * alpha * (e^x - 1) below: ELU and SELU."""

    def tail(x: Array) -> Array:
        return scale * alpha * np.exp(np.minimum(x, 0))

    return Activation(
        name=name,
        function=lambda x: np.where(
            x > 0, scale * x, scale * alpha * np.expm1(np.minimum(x, 0))
        ),
        derivative=lambda x: np.where(x > 0, scale, tail(x)),
        curvature=lambda x: np.where(x > 0, 0.0, tail(x)),
        slopes=(0.0, scale),
        reach=(-40.0, 0.0),
        kinks=(0.0,),
    )


RELU = LeakyReLU(0.0, name="relu")
GELU = Activation(
    name="gelu",
    function=lambda x: x * ndtr(x),
    derivative=lambda x: ndtr(x) + x * _phi(x),
    curvature=lambda x: _phi(x) * (2 - x**2),
    slopes=(0.0, 1.0),
    reach=(-9.4, 9.4),
    inflections=(-sqrt(2), sqrt(2)),
)
_GELU_TANH = Activation(
    name="gelu_tanh",
    function=lambda x: x * expit(2 * _TANH_SCALE * (x + _TANH_CUBIC * x**3)),
    derivative=_gelu_tanh_derivative,
    curvature=_gelu_tanh_curvature,
    slopes=(0.0, 1.0),
    reach=(-8.0, 8.0),
    inflections=(-1.41850400879082836, 1.41850400879082836),
)
_SOFTPLUS = Activation(
    name="softplus",
    function=_softplus,
    derivative=expit,
    curvature=_bell,
    slopes=(0.0, 1.0),
    reach=(-40.0, 40.0),
)
_SIGMOID = Activation(
    name="sigmoid",
    function=expit,
    derivative=_bell,
    curvature=lambda x: -_bell(x) * np.tanh(x / 2),
    slopes=(0.0, 0.0),
    reach=(-40.0, 40.0),
    inflections=(0.0,),
)
_TANH = Activation(
    name="tanh",
    function=np.tanh,
    derivative=lambda x: 4 * _bell(2 * x),
    curvature=lambda x: -8 * _bell(2 * x) * np.tanh(x),
    slopes=(0.0, 0.0),
    reach=(-21.0, 21.0),
    inflections=(0.0,),
)
_MISH = Activation(
    name="mish",
    function=lambda x: x * np.tanh(_softplus(x)),
    derivative=_mish_derivative,
    curvature=_mish_curvature,
    slopes=(0.0, 1.0),
    reach=(-45.0, 23.0),
    inflections=(-2.25637639636079312, 1.49057117948542846),
)
_RELU6 = Activation(
    name="relu6",
    function=lambda x: np.clip(x, 0.0, 6.0),
    derivative=lambda x: np.where((x > 0) & (x < 6), 1.0, 0.0),
    curvature=np.zeros_like,
    slopes=(0.0, 0.0),
    reach=(0.0, 6.0),
    kinks=(0.0, 6.0),
)
_HARD_SWISH = Activation(
    name="hard_swish",
    function=lambda x: x * np.clip(x + 3, 0, 6) / 6,
    derivative=lambda x: np.where(np.abs(x) < 3, x / 3 + 1 / 2, (x > 0) * 1.0),
    curvature=lambda x: np.where(np.abs(x) < 3, 1 / 3, 0.0),
    slopes=(0.0, 1.0),
    reach=(-3.0, 3.0),
    kinks=(-3.0, 3.0),
)
# SELU's constants are those of Klambauer et al. 2017; PReLU's slope is the one that
# networks start from.
NAMED: dict[str, Activation] = {
    activation.name: activation
    for activation in (
        RELU,
        LeakyReLU(),
        LeakyReLU(0.25, name="prelu"),
        _RELU6,
        _HARD_SWISH,
        _exponential_linear("elu", 1.0, 1.0),
        _exponential_linear("selu", 1.0507009873554805, 1.6732632423543772),
        GELU,
        _GELU_TANH,
        _sigmoid_weighted("quick_gelu", 1.702),
        _sigmoid_weighted("silu", 1.0),
        _SOFTPLUS,
        _MISH,
        _TANH,
        _SIGMOID,
        LeakyReLU(1.0, name="identity"),
    )
}

"""The activations as numpy functions of an array."""

from collections.abc import Callable, Mapping
from math import isclose, isfinite, pi, sqrt
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import expit, ndtr

Array: TypeAlias = npt.NDArray[np.float64]
Activation: TypeAlias = Callable[[Array], Array]


def relu(x: Array) -> Array:
    """Rectified linear unit, max(x, 0)."""
    return np.maximum(x, 0.0)


def leaky_relu(x: Array) -> Array:
    """Leaky ReLU with the common default slope: x above zero, 0.01 x below."""
    return np.maximum(x, 0.01 * x)


def gelu(x: Array) -> Array:
    """GELU with the exact normal distribution function, x Phi(x)."""
    return x * ndtr(x)


def gelu_tanh(x: Array) -> Array:
    """GELU by its tanh approximation (Hendrycks and Gimpel 2016, section 2)."""
    curve: Array = np.tanh(sqrt(2 / pi) * x * (1 + 0.044715 * x * x))
    return x * (1 + curve) / 2


def quick_gelu(x: Array) -> Array:
    """GELU by its sigmoid approximation, x sigmoid(1.702 x), as in OpenAI's CLIP."""
    return x * expit(1.702 * x)


def prelu(x: Array) -> Array:
    """PReLU at the slope that networks start from: x above zero, 0.25 x below."""
    return np.maximum(x, 0.25 * x)


def relu6(x: Array) -> Array:
    """ReLU cut at 6."""
    return np.clip(x, 0.0, 6.0)


def hard_swish(x: Array) -> Array:
    """Hard swish, x clip(x + 3, 0, 6) / 6."""
    return x * np.clip(x + 3.0, 0.0, 6.0) / 6.0


def elu(x: Array) -> Array:
    """Exponential linear unit: x above zero, exp(x) - 1 below."""
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0.0)))


def selu(x: Array) -> Array:
    """Self-normalising ELU (Klambauer et al. 2017)."""
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    return scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


def sigmoid(x: Array) -> Array:
    """Logistic function, 1 / (1 + exp(-x))."""
    return expit(x)


def silu(x: Array) -> Array:
    """Sigmoid linear unit, x sigmoid(x)."""
    return x * expit(x)


def softplus(x: Array) -> Array:
    """Softplus, log(1 + exp(x))."""
    return np.logaddexp(0.0, x)


def mish(x: Array) -> Array:
    """Mish, x tanh(softplus(x))."""
    return x * np.tanh(softplus(x))


def tanh(x: Array) -> Array:
    """Hyperbolic tangent of x."""
    return np.tanh(x)


def identity(x: Array) -> Array:
    """Linear activation, x itself."""
    return x


KNOWN: dict[str, Activation] = {
    f.__name__: f
    for f in (
        relu,
        leaky_relu,
        prelu,
        relu6,
        hard_swish,
        elu,
        selu,
        gelu,
        gelu_tanh,
        quick_gelu,
        silu,
        softplus,
        mish,
        tanh,
        sigmoid,
        identity,
    )
}


def resolve(
    activation: str | Activation, named: Mapping[str, Activation] = KNOWN
) -> Activation:
    """Return the function of that name, or the elementwise function given.

    Raises ValueError for an unknown name and TypeError for anything else.
    """
    if isinstance(activation, str):
        if activation not in named:
            known = ", ".join(named)
            raise ValueError(f"activation must be one of {known}, got {activation!r}")
        return named[activation]
    if not callable(activation):
        raise TypeError(
            f"activation must be a name or a function of an array, got {activation!r}"
        )
    return activation


def evaluate(f: Activation, x: Any, asarray: Callable[[Any], Any] = np.asarray) -> Any:
    """f(x), refused with a ValueError unless it is finite and shaped like x.

    `asarray` turns what f returns into an array of x's library.
    """
    y = asarray(f(x))
    # One sum first: it is finite unless a value is not, or it overflows itself.
    with np.errstate(invalid="ignore", over="ignore"):
        total = y.sum()
    if not isfinite(total) and not (finite := abs(y) < np.inf).all():
        at = f" at {x[~finite][0]}" if y.shape == x.shape else ""
        raise ValueError(f"activation must be finite, got {y[~finite][0]}{at}")
    if y.shape != x.shape:
        raise ValueError(
            f"activation must be elementwise: it mapped shape {tuple(x.shape)} to "
            f"{tuple(y.shape)}"
        )
    return y


def check_elementwise(
    f: Activation, x: Any, asarray: Callable[[Any], Any] = np.asarray
) -> None:
    """Refuse with a ValueError an f that mixes the elements of x [n] or draws lots."""
    together = evaluate(f, x + 0.0, asarray)
    for i in range(len(x)):
        alone = evaluate(f, x[i : i + 1] + 0.0, asarray)
        # The same function may round differently in arrays of different lengths.
        if not isclose(alone[0], together[i], rel_tol=1e-9, abs_tol=1e-12):
            raise ValueError(
                "activation must be elementwise: its value at a point changed with "
                "the other points"
            )

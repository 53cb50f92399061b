"""Random networks of the paper's form (Eq. 1), and models fine-tuned from them.

A family fixes widths m_0, ..., m_{L+1} and the standard deviation of every parameter,
by He's rule for any activation: with E f(Z)^2 in place of ReLU's 1/2,

    weights of layer 1      N(0, (1 - b) / m_0)
    weights of layer l > 1  N(0, (1 - b) / (m_{l-1} E f(Z)^2))        Z ~ N(0, 1)
    biases                  N(0, b)

so that a wide network's pre-activations, and outputs, have mean square 1 in every
layer on inputs of mean square 1. b is `bias_share`, 0 in He's rule. A fine-tune is its
base plus sigma times another network of the family: every parameter moves by sigma
times the standard deviation that it was drawn with, and the pre-activations of a layer,
on one input of it, by sigma times their own root mean square over networks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, pi, sqrt

import numpy as np
from scipy.integrate import quad

from simulate.activations import Activation, Array, evaluate, resolve
from simulate.laws import positive_integer

_FURTHEST = 12.0  # the normal density is 2e-32 of its peak there


@dataclass(frozen=True)
class Layer:
    """A linear map: weight [out, in] and bias [out]."""

    weight: Array
    bias: Array

    def __call__(self, a: Array) -> Array:
        """W a + b for a [..., in]."""
        return a @ self.weight.T + self.bias


Network = tuple[Layer, ...]


@dataclass(frozen=True)
class NetworkFamily:
    """Widths [L + 2], the activation, and each layer's deviations: weights, biases."""

    widths: tuple[int, ...]
    activation: Activation
    deviations: tuple[tuple[float, float], ...]

    @property
    def depth(self) -> int:
        """The number L of hidden layers."""
        return len(self.widths) - 2

    def draw(self, rng: np.random.Generator) -> Network:
        """One network of the family, its parameters independent."""
        shapes = zip(pairwise(self.widths), self.deviations, strict=True)
        return tuple(
            Layer(
                weight=rng.normal(0.0, deviation, size=(after, before)),
                bias=rng.normal(0.0, bias_deviation, size=after),
            )
            for (before, after), (deviation, bias_deviation) in shapes
        )

    def draw_inputs(self, n: int, rng: np.random.Generator) -> Array:
        """n inputs [n, m_0] of mean square exactly 1, uniform on that sphere."""
        x = rng.normal(size=(n, self.widths[0]))
        x /= np.sqrt(np.mean(x**2, axis=1, keepdims=True))
        return x


def network_family(
    widths: Sequence[int],
    *,
    activation: str | Activation = "relu",
    bias_share: float = 0.0,
) -> NetworkFamily:
    """Networks with the widths m_0, ..., m_{L+1}, inputs first; L >= 1.

    Raises ValueError or TypeError for fewer than three widths or one that is not a
    count, an unknown activation or one that vanishes, a share outside [0, 1).
    """
    counts = tuple(positive_integer("widths", width) for width in widths)
    if len(counts) < 3:
        raise ValueError(
            f"widths must name inputs, hidden layers and outputs, got {list(counts)}"
        )
    if not 0 <= bias_share < 1:
        raise ValueError(f"bias_share must be in [0, 1), got {bias_share!r}")
    f = resolve(activation)
    means = [1.0] + [mean_square(f)] * (len(counts) - 2)
    deviations = tuple(
        (sqrt((1 - bias_share) / (before * mean)), sqrt(bias_share))
        for before, mean in zip(counts[:-1], means, strict=True)
    )
    return NetworkFamily(counts, f, deviations)


def mean_square(f: Activation) -> float:
    """E f(Z)^2 for Z ~ N(0, 1): 1/2 for ReLU; ValueError where f vanishes."""

    def integrand(z: float) -> float:
        value = float(evaluate(f, np.array([z]))[0])
        return value**2 * exp(-z * z / 2) / sqrt(2 * pi)

    value = float(quad(integrand, -_FURTHEST, _FURTHEST, points=(0.0,), limit=200)[0])
    if not value > 0:
        raise ValueError("activation must not vanish: no weights give it a mean square")
    return value


def combined(networks: Sequence[Network], coefficients: Sequence[float]) -> Network:
    """The network with parameters sum_j coefficients_j theta_j."""

    def total(parts: Iterable[Array]) -> Array:
        terms = (c * part for c, part in zip(coefficients, parts, strict=True))
        return np.asarray(sum(terms))

    return tuple(
        Layer(
            weight=total(layer.weight for layer in layers),
            bias=total(layer.bias for layer in layers),
        )
        for layers in zip(*networks, strict=True)
    )


def pre_activations(network: Network, x: Array, *, f: Activation) -> list[Array]:
    """h^1, ..., h^L and the output h^{L+1}, each [..., node], for x [..., in] (Eq. 2).

    The first layer of `network` takes x itself.
    """
    h = [network[0](x)]
    for layer in network[1:]:
        h.append(layer(activated(f, h[-1])))
    return h


def activated(f: Activation, h: Array) -> Array:
    """f(h), checked; h stays as it is even where f works in place."""
    values: Array = evaluate(f, h.copy())
    return values

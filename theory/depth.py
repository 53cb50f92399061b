r"""From the layers' discrepancies to the output gap, for the networks of Eq. 1.

The merged network has the averaged parameters W^l, b^l and the layers
T_l(a) = f(W^l a + b^l), the last one affine. Source i has activations a_i^l, whose
weighted mean is a^l. The merged layer, fed that mean, misses the next one by

    d_l = T_l(a^{l-1}) - a^l,

which holds the layer's M-Loss J_l = f(z^l) - sum_i w_i f(z_i^l), z^l the mean of
the pre-activations z_i^l, and the linear cross term
C_l = sum_i w_i (W_i^l - W^l) (a_i^{l-1} - a^{l-1}):

    d_l = f(z^l - C_l) - f(z^l) + J_l,      and -C_l for the last layer.

The output gap is the telescoping sum of the d_l carried through the layers above
them, hence at most sum_l ||d_l|| prod_{j > l} ||W^j|| Lip(f). Proofs in docs/depth.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.activations import Activation
from theory.analysis import resolve
from theory.law import error_law
from theory.variation import turning_slopes

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Layer:
    """A linear map of a network: weight [out, in] and bias [out]."""

    weight: Array
    bias: Array

    def __call__(self, a: Array) -> Array:
        """W a + b for a [sample, in]."""
        return a @ self.weight.T + self.bias


@dataclass(frozen=True)
class DepthBound:
    """The output gap of a merge, layer by layer; Euclidean norms over the nodes.

    `gap` [sample, output] is merged less ensemble; `bound` [sample] is above its
    norm. `discrepancy`, `mloss` and `cross` [layer, sample] are the norms of d_l, J_l
    and C_l, and `amplification` [layer] bounds what the layers above do to d_l.
    `estimate` [sample, output] carries the d_l upwards by the merged network's
    derivatives; for a smooth activation its error is of second order in the d_l.
    """

    gap: Array
    bound: Array
    estimate: Array
    discrepancy: Array
    mloss: Array
    cross: Array
    amplification: Array


def depth_bound(
    sources: Sequence[Sequence[Layer]],
    inputs: ArrayLike,
    *,
    activation: str | Activation,
    weights: ArrayLike | None = None,
) -> DepthBound:
    """Bound and estimate || f_merged(x) - sum_i w_i f_i(x) || by the layers' d_l.

    `sources` are q networks, each a list of layers with the activation between
    them (paper Eq. 1); `inputs` is [sample, in]; `weights` [q] default to 1/q.
    Raises ValueError where the sources' shapes differ or do not chain.
    """
    f = resolve(activation)
    x = np.asarray(inputs, dtype=np.float64)
    _check_shapes(sources, x)
    w = error_law(len(sources), weights, None).weights
    merged = [_average(layers, w) for layers in zip(*sources, strict=True)]
    stages = [f] * (len(merged) - 1) + [resolve("identity")]

    a = np.stack([x] * len(sources))  # [q, sample, node]
    splits = []
    for layer, own, g in zip(merged, zip(*sources, strict=True), stages, strict=True):
        split, a = _split(layer, own, a, g=g, weights=w)
        splits.append(split)
    amplification = _amplification(merged, lipschitz_constant(f))
    discrepancy = _norms([split.discrepancy for split in splits])
    return DepthBound(
        gap=_output(merged, stages, x) - _mean(a, w),
        bound=amplification @ discrepancy,
        estimate=_first_order(splits, merged, stages),
        discrepancy=discrepancy,
        mloss=_norms([split.mloss for split in splits]),
        cross=_norms([split.cross for split in splits]),
        amplification=amplification,
    )


def lipschitz_constant(activation: str | Activation) -> float:
    """sup |f'|: f' is largest in size at a turn, at a kink or in a limit."""
    return float(np.abs(turning_slopes(resolve(activation))).max())


@dataclass(frozen=True)
class _Split:
    """One layer: W a + b at the mean activation a, and d_l, J_l, C_l [sample, node]."""

    fed: Array
    discrepancy: Array
    mloss: Array
    cross: Array


def _split(
    merged: Layer, own: Sequence[Layer], a: Array, *, g: Activation, weights: Array
) -> tuple[_Split, Array]:
    """The layer's split, and the sources' activations [q, sample, node] after it."""
    z = np.stack([layer(own_a) for layer, own_a in zip(own, a, strict=True)])
    after = g(z)
    fed, mean_z = merged(_mean(a, weights)), _mean(z, weights)
    mean_after = _mean(after, weights)
    split = _Split(
        fed=fed,
        discrepancy=g(fed) - mean_after,
        mloss=g(mean_z) - mean_after,
        cross=mean_z - fed,
    )
    return split, after


def _first_order(
    splits: Sequence[_Split], merged: Sequence[Layer], stages: Sequence[Activation]
) -> Array:
    """The d_l carried upwards, each layer linearised at the mean activation."""
    carried = np.zeros((len(splits[0].fed), merged[0].weight.shape[1]))
    for split, layer, g in zip(splits, merged, stages, strict=True):
        carried = g.derivative(split.fed) * (carried @ layer.weight.T)
        carried = carried + split.discrepancy
    return carried


def _amplification(merged: Sequence[Layer], lipschitz: float) -> Array:
    """prod_{j > l} ||W^j|| Lip(f) [layer]; the last layer has no activation."""
    factors = [float(np.linalg.norm(layer.weight, 2)) for layer in merged]
    factors = [factor * lipschitz for factor in factors[:-1]] + factors[-1:]
    above: Array = np.cumprod([1.0, *reversed(factors[1:])], dtype=np.float64)
    return above[::-1]


def _output(merged: Sequence[Layer], stages: Sequence[Activation], x: Array) -> Array:
    for layer, g in zip(merged, stages, strict=True):
        x = g(layer(x))
    return x


def _average(layers: Sequence[Layer], weights: Array) -> Layer:
    return Layer(
        _mean(np.stack([layer.weight for layer in layers]), weights),
        _mean(np.stack([layer.bias for layer in layers]), weights),
    )


def _mean(values: Array, weights: Array) -> Array:
    """The weighted mean over the first axis, the sources."""
    mean: Array = np.tensordot(weights, values, axes=1)
    return mean


def _norms(parts: Sequence[Array]) -> Array:
    """Norms over the nodes, [layer, sample]."""
    return np.stack([np.linalg.norm(part, axis=1) for part in parts])


def _check_shapes(sources: Sequence[Sequence[Layer]], x: Array) -> None:
    if not sources or not sources[0]:
        raise ValueError("sources must hold at least one network of one layer")
    if x.ndim != 2:
        raise ValueError(f"inputs must be [sample, in], got the shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError("inputs must be finite")
    width = x.shape[1]
    for number, layer in enumerate(sources[0], 1):
        outputs = len(layer.weight)
        if _shape(layer) != ((outputs, width), (outputs,)):
            raise ValueError(
                f"layer {number} of the first source must take {width} inputs to the "
                f"size of its bias, got the weight and bias shapes {_shape(layer)}"
            )
        width = outputs
    shapes = [_shape(layer) for layer in sources[0]]
    for number, network in enumerate(sources, 1):
        found = [_shape(layer) for layer in network]
        if found != shapes:
            raise ValueError(
                f"source {number} must have the shapes {shapes} of the first, "
                f"got {found}"
            )


def _shape(layer: Layer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return layer.weight.shape, layer.bias.shape

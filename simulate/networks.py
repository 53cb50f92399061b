"""Merging whole networks: M-Loss of every layer beside the gap of the output.

Base, sources and merge are networks of one family (`simulate.random_networks`); source
i is the base plus sigma times a network of its own. The pre-activations of layer l
depend on what the layer is fed:

    own     every source its own activations (Definitions 3.3 and 3.4)
    merged  all sources the merged network's (Algorithm 1, line 24)
    base    all sources the base's

The gap is merged output less ensemble output. It is a telescoping sum over the layers,
with two parts each, carried to the output by the merged layers above: the layer's
M-Loss in the own feed, and the cross term, by which the merged layer's pre-activations
at the sources' mean input differ from the sources' mean (docs/depth.md, section 1).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from simulate.activations import Activation, Array
from simulate.laws import positive_integer, pre_activation_law
from simulate.random_networks import (
    Network,
    NetworkFamily,
    activated,
    combined,
    network_family,
    pre_activations,
)

FEEDS = ("own", "merged", "base")


@dataclass(frozen=True)
class NetworkMeasurements:
    """What was measured on independent networks, each a mean over its inputs.

    By network, feed (in the order of `FEEDS`) and hidden layer: `node_mloss`, the mean
    over nodes of Eq. 4; `layer_mloss`, Eq. 3; `jensen_variance`, the mean over nodes of
    sum_i w_i (h_i - sum_j w_j h_j)^2. By network and hidden layer: `spread`, the mean
    square of the base's pre-activations, and `largest`, their largest size. By network:
    the mean squares over output nodes of the base's `output` and of the `gap`. By
    network and feed: that of the `carried` M-Loss, summed over the layers, and its
    `overlap`, the mean of its product with the gap.
    """

    node_mloss: Array
    layer_mloss: Array
    jensen_variance: Array
    spread: Array
    largest: Array
    output: Array
    gap: Array
    carried: Array
    overlap: Array


@dataclass(frozen=True)
class NetworkMean:
    """Means over networks and their standard errors, shaped alike."""

    value: Array
    stderr: Array


def measure_networks(
    widths: Sequence[int],
    sigma: float,
    *,
    activation: str | Activation = "relu",
    q: int = 2,
    weights: npt.ArrayLike | None = None,
    bias_share: float = 0.0,
    networks: int,
    inputs: int,
    rng: np.random.Generator,
    progress: Callable[[int, int], object] | None = None,
) -> NetworkMeasurements:
    """Merge q fine-tunes of each of many random networks and measure what is lost.

    `widths` are m_0, ..., m_{L+1}; `weights` [q] default to 1/q. Each network has its
    own base, fine-tunes and inputs, from a generator of its own: runs of one seed see
    the same networks and the same first inputs, whatever their number and sigma.
    `progress` is told, after every network, how many are done and of how many. Numbers
    repeat to the rounding of the linear algebra.

    Raises ValueError or TypeError as `network_family` does, and for sigma not above 0,
    fewer than two networks, no input, weights that do not fit q, an rng that is no
    Generator, and activations or a sigma that make the numbers overflow.
    """
    family = network_family(widths, activation=activation, bias_share=bias_share)
    w = pre_activation_law(1.0, sigma, q=q, weights=weights).weights
    count = positive_integer("networks", networks, least=2)
    n = positive_integer("inputs", inputs)
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator, got {rng!r}")
    measured = []
    for done, own_rng in enumerate(rng.spawn(count), 1):
        merge = draw_merge(family, sigma, weights=w, rng=own_rng)
        x = family.draw_inputs(n, own_rng)
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            measured.append(measure_merge(merge, x, f=family.activation))
        if progress is not None:
            progress(done, count)
    return _stacked(measured)


def over_networks(values: Array) -> NetworkMean:
    """Mean of values [network, ...] over the networks, the independent unit."""
    count = len(values)
    if count < 2:
        raise ValueError(f"values must be of at least two networks, got {count}")
    stderr = values.std(axis=0, ddof=1) / np.sqrt(count)
    return NetworkMean(np.asarray(values.mean(axis=0)), np.asarray(stderr))


def ratio_over_networks(above: Array, below: Array) -> NetworkMean:
    """Mean of `above` over mean of `below` [network], with its delta-method error.

    `above` may have further axes. Raises ValueError where the mean below is zero.
    """
    if not below.mean() != 0:
        raise ValueError("below must not have the mean 0")
    ratio = above.mean(axis=0) / below.mean()
    left = above - np.multiply.outer(below, ratio)
    return NetworkMean(ratio, over_networks(left / below.mean()).stderr)


@dataclass(frozen=True)
class Merge:
    """A base, its fine-tunes, their weights, and the network of mean parameters."""

    base: Network
    sources: tuple[Network, ...]
    merged: Network
    weights: Array


def draw_merge(
    family: NetworkFamily, sigma: float, *, weights: Array, rng: np.random.Generator
) -> Merge:
    """Draw a base, a fine-tune for each of `weights` [q], and average these."""
    base = family.draw(rng)
    sources = tuple(
        combined([base, family.draw(rng)], [1.0, sigma]) for _ in range(len(weights))
    )
    return Merge(base, sources, combined(sources, list(weights)), weights)


def measure_merge(merge: Merge, x: Array, *, f: Activation) -> NetworkMeasurements:
    """Measure one merge on inputs x [input, m_0]; the fields lack their first axis.

    Raises ValueError where the activation is not finite or not elementwise.
    """
    w = merge.weights
    base, merged = (pre_activations(n, x, f=f) for n in (merge.base, merge.merged))
    each = [pre_activations(source, x, f=f) for source in merge.sources]
    *own, outputs = [np.stack(h) for h in zip(*each, strict=True)]
    feeds = (
        own,
        _fed(merge.sources, x, merged[:-2], f=f),
        _fed(merge.sources, x, base[:-2], f=f),
    )
    node, layer, variance = _by_layer(feeds, f=f, weights=w)
    gap = merged[-1] - _mean(outputs, w)
    carried = np.stack([_carried(merge, hidden, f=f) for hidden in feeds])
    return NetworkMeasurements(
        node_mloss=node,
        layer_mloss=layer,
        jensen_variance=variance,
        spread=np.array([np.mean(h**2) for h in base[:-1]]),
        largest=np.array([np.abs(h).max() for h in base[:-1]]),
        output=np.asarray(np.mean(base[-1] ** 2)),
        gap=np.asarray(np.mean(gap**2)),
        carried=np.mean(carried**2, axis=(1, 2)),
        overlap=np.mean(carried * gap, axis=(1, 2)),
    )


def _stacked(measured: Sequence[NetworkMeasurements]) -> NetworkMeasurements:
    names = [field.name for field in fields(NetworkMeasurements)]
    arrays = {
        name: np.stack([getattr(one, name) for one in measured]) for name in names
    }
    if not all(np.isfinite(values).all() for values in arrays.values()):
        raise ValueError("sigma or the activation is too large: float64 overflows")
    return NetworkMeasurements(**arrays)


def _fed(
    sources: Sequence[Network], x: Array, below: Sequence[Array], *, f: Activation
) -> list[Array]:
    """The sources' hidden pre-activations, all fed one network's activations.

    `below` are that network's own pre-activations, but for the last hidden layer's.
    """
    inputs = [x, *(activated(f, h) for h in below)]
    return [
        np.stack([source[layer](a) for source in sources])
        for layer, a in enumerate(inputs)
    ]


def _by_layer(
    feeds: Sequence[Sequence[Array]], *, f: Activation, weights: Array
) -> tuple[Array, Array, Array]:
    """Node and layer M-Loss and Jensen variance [feed, layer], as means."""
    found = [[_losses(h, f=f, weights=weights) for h in hidden] for hidden in feeds]
    node, layer, variance = np.moveaxis(np.array(found), -1, 0)
    return node, layer, variance


def _losses(h: Array, *, f: Activation, weights: Array) -> tuple[float, float, float]:
    averaged, ensembled = _both_sides(h, f=f, weights=weights)
    loss = np.abs(averaged - ensembled)
    variance = _mean((h - _mean(h, weights)) ** 2, weights)
    norms = np.linalg.norm(loss, axis=-1)
    return float(loss.mean()), float(norms.mean()), float(variance.mean())


def _carried(merge: Merge, hidden: Sequence[Array], *, f: Activation) -> Array:
    """The sum over layers of their M-Loss, carried to the output by the merge."""
    outputs = merge.merged[-1].bias
    total = np.zeros((*hidden[0].shape[1:-1], len(outputs)))
    for below, h in enumerate(hidden, 1):
        above = merge.merged[below:]
        averaged, ensembled = _both_sides(h, f=f, weights=merge.weights)
        total += pre_activations(above, averaged, f=f)[-1]
        total -= pre_activations(above, ensembled, f=f)[-1]
    return total


def _both_sides(h: Array, *, f: Activation, weights: Array) -> tuple[Array, Array]:
    """f(sum_i w_i h_i) and sum_i w_i f(h_i) of h [q, input, node]."""
    return activated(f, _mean(h, weights)), _mean(activated(f, h), weights)


def _mean(values: Array, weights: Array) -> Array:
    """The weighted mean over the first axis, the sources."""
    mean: Array = weights @ values.reshape(len(values), -1)
    return mean.reshape(values.shape[1:])

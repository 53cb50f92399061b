"""Figures of whole random networks, merged."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from figures.gallery.plate import Plate
from figures.random_networks import GapSeries, LayerLosses, random_networks
from simulate.networks import (
    FEEDS,
    NetworkMeasurements,
    measure_networks,
    over_networks,
    ratio_over_networks,
)
from theory import (
    expected_mloss,
)
from theory.density import density_law, normal_density
from theory.wide import wide_merge

Array: TypeAlias = npt.NDArray[np.float64]


def draw_random_networks(seed: int) -> Figure:
    """Merges of random networks of width 64: measured, and as theory foretells."""
    names = {"relu": "ReLU", "gelu": "GELU", "identity": "linear"}
    sigmas, depths = np.geomspace(0.01, 1, 5), np.array([1.0, 2, 4, 8, 16])
    fine, every = np.geomspace(0.01, 1, 40), np.arange(1.0, 17.0)
    return random_networks(
        [_layer_losses(name, names[name], seed) for name in ("relu", "gelu")],
        over_sigma=[
            _gaps(name, label, seed, x=sigmas, curve=fine, at=lambda x: (x, 4))
            for name, label in names.items()
        ],
        over_depth=[
            _gaps(name, label, seed, x=depths, curve=every, at=lambda x: (0.1, int(x)))
            for name, label in names.items()
        ],
    )


def _merged_networks(
    name: str, sigma: float, depth: int, *, seed: int
) -> NetworkMeasurements:
    rng = np.random.default_rng(seed)
    widths = (64,) * (depth + 2)
    return measure_networks(
        widths, sigma, activation=name, networks=30, inputs=8, rng=rng
    )


def _gaps(
    name: str,
    label: str,
    seed: int,
    *,
    x: Array,
    curve: Array,
    at: Callable[[float], tuple[float, int]],
) -> GapSeries:
    """Gaps at points x and on a curve; `at` gives the sigma and the depth of each."""
    unit = np.array([at(t)[0] ** 2 for t in x])
    found = [_merged_networks(name, *at(t), seed=seed) for t in x]
    means = [over_networks(each.gap) for each in found]
    gap = np.sqrt([mean.value for mean in means])
    wide = [wide_merge(name, sigma, depth=depth) for sigma, depth in map(at, curve)]
    shares = [ratio_over_networks(each.overlap, each.gap).value for each in found]
    own, merged = np.transpose(shares)[[FEEDS.index("own"), FEEDS.index("merged")]]
    return GapSeries(
        label=label,
        x=x,
        gap=gap / unit,
        stderr=np.array([mean.stderr for mean in means]) / (2 * gap * unit),
        predicted_x=curve,
        predicted=np.array(
            [each.gap**0.5 / at(t)[0] ** 2 for t, each in zip(curve, wide, strict=True)]
        ),
        shares={"own inputs": own, "the merge's": merged} if own.any() else {},
    )


def _layer_losses(name: str, title: str, seed: int) -> LayerLosses:
    """Node M-Loss of six layers, and from each network's spread and Jensen variance."""
    sigma, own = 0.1, FEEDS.index("own")
    found = _merged_networks(name, sigma, 6, seed=seed)
    V, deviation = found.jensen_variance[:, own], np.sqrt(found.spread)

    def gaussian(deviation: float, variance: float) -> Array:
        base = normal_density(0, deviation)
        return density_law(name, base, jensen_variance=variance)

    half_widths = {
        r"uniform, $k = \sqrt{3}$ sd": np.sqrt(3) * deviation,
        "uniform, $k$ = largest": found.largest,
    }
    predicted = {"Gaussian": np.vectorize(gaussian)(deviation, V)} | {
        label: expected_mloss(name, k, np.sqrt(2 * V))
        for label, k in half_widths.items()
    }
    mean = over_networks(found.node_mloss[:, own])
    return LayerLosses(
        title=title,
        measured=mean.value / sigma**2,
        stderr=mean.stderr / sigma**2,
        predicted={
            label: values.mean(axis=0) / sigma**2 for label, values in predicted.items()
        },
    )


PLATES = {
    "random_networks": Plate(
        "Two fine-tunes of random networks of width 64, merged. Left: node M-Loss by "
        "layer at sigma = 0.1, every source on its own activations, and predictions "
        "from each layer's spread and Jensen variance. Above: the root mean square gap "
        "between merge and ensemble, over sigma at four layers and over depth at "
        "sigma = 0.1; lines are the limit of wide networks, with nothing fitted. "
        "Below: the share of layer M-Loss, carried to the output, in the gap. Bars are "
        "two standard errors over networks.",
        draw_random_networks,
    ),
}

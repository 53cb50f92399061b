"""Merging random networks: what is measured, and how well theory foretells it.

    python benchmarks/networks.py [--quick | --stored]

Stores `results/networks.json` and prints the tables of docs/networks.md, in some ten
minutes of one core. Pairs are a mean over independent networks and its standard error.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from simulate.networks import (
    FEEDS,
    Merge,
    NetworkMean,
    NetworkMeasurements,
    draw_merge,
    measure_networks,
    over_networks,
    ratio_over_networks,
)
from simulate.random_networks import network_family
from theory import expected_mloss
from theory.activations import Activation
from theory.analysis import resolve
from theory.density import density_law, gaussian_base_mloss, normal_density
from theory.depth import Layer, depth_bound
from theory.wide import wide_merge

RESULTS = Path(__file__).parent / "results" / "networks.json"
WIDTH, DEPTH, SIGMA, INPUTS = 128, 4, 0.1, 16
SIGMAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
DEPTHS = (1, 2, 4, 8, 16)
WIDTHS = (8, 16, 32, 64, 128, 256)
NAMES = ("relu", "gelu", "tanh", "identity")
FLAT = np.sqrt(3)  # half-width of a uniform law in units of its deviation


@dataclass(frozen=True)
class Point:
    activation: str
    width: int = WIDTH
    depth: int = DEPTH
    sigma: float = SIGMA

    @property
    def widths(self) -> tuple[int, ...]:
        return (self.width,) * (self.depth + 2)


def measured(point: Point, *, networks: int) -> NetworkMeasurements:
    return measure_networks(
        point.widths,
        point.sigma,
        activation=point.activation,
        networks=networks,
        inputs=INPUTS,
        rng=np.random.default_rng(0),
    )


def pair(mean: NetworkMean) -> list:
    return np.stack([mean.value, mean.stderr], axis=-1).tolist()


def by_feed(values: np.ndarray) -> dict[str, list]:
    return dict(zip(FEEDS, pair(over_networks(values)), strict=True))


def node_predictions(point: Point, found: NetworkMeasurements) -> dict[str, np.ndarray]:
    """Predicted node M-Loss [network, layer], from a network's own spread and V."""
    V = found.jensen_variance[:, FEEDS.index("own")]
    sigma, deviation = np.sqrt(2 * V), np.sqrt(found.spread)
    f = point.activation

    def each(law):
        return np.vectorize(law)(deviation, sigma)

    predicted = {
        "uniform, k = largest": expected_mloss(f, found.largest, sigma),
        "uniform, k = sqrt(3) sd": expected_mloss(f, FLAT * deviation, sigma),
        "density law": each(
            lambda sd, s: density_law(
                f, normal_density(0, sd), jensen_variance=s**2 / 2
            )
        ),
    }
    if resolve(f).bends_one_way():
        predicted["Gaussian, exact"] = each(
            lambda sd, s: gaussian_base_mloss(f, mean=0, deviation=sd, sigma=s)
        )
    return predicted


def node_rows(*, networks: int) -> Iterator[dict]:
    for name in NAMES[:-1]:
        for sigma in (0.03, 0.1, 0.3, 1.0):
            point = Point(name, sigma=sigma)
            found = measured(point, networks=networks)
            wide = wide_merge(name, sigma, depth=point.depth)
            own = found.node_mloss[:, FEEDS.index("own")]
            yield {
                **asdict(point),
                "node_mloss": by_feed(found.node_mloss),
                "layer_mloss": by_feed(found.layer_mloss),
                "jensen_variance": pair(
                    over_networks(found.jensen_variance[:, FEEDS.index("own")])
                ),
                "wide_jensen_variance": wide.jensen_variance.tolist(),
                "largest": pair(over_networks(found.largest)),
                "predicted_over_measured": {
                    label: [
                        pair(ratio_over_networks(values[:, layer], own[:, layer]))
                        for layer in range(point.depth)
                    ]
                    for label, values in node_predictions(point, found).items()
                },
            }


def gap_row(point: Point, *, networks: int) -> dict:
    found = measured(point, networks=networks)
    wide = wide_merge(point.activation, point.sigma, depth=point.depth)
    gap = over_networks(found.gap)
    shares = ratio_over_networks(found.overlap, found.gap)
    sizes = ratio_over_networks(found.carried, found.gap)
    return {
        **asdict(point),
        "gap": [float(np.sqrt(gap.value)), float(gap.stderr / np.sqrt(gap.value) / 2)],
        "wide_gap": float(np.sqrt(wide.gap)),
        "output": float(np.sqrt(found.output.mean())),
        "mloss_share": dict(zip(FEEDS, pair(shares), strict=True)),
        "mloss_size": dict(zip(FEEDS, np.sqrt(sizes.value).tolist(), strict=True)),
        **single_merges(point, networks=max(10, networks // 5)),
    }


def single_merges(point: Point, *, networks: int) -> dict:
    """What takes a network's own parameters: the bound and the expansions."""
    family = network_family(point.widths, activation=point.activation)
    f = resolve(point.activation)
    weights = np.full(2, 1 / 2)
    bound, trivial, errors, sizes = [], [], [], []
    for rng in np.random.default_rng(1).spawn(networks):
        merge = draw_merge(family, point.sigma, weights=weights, rng=rng)
        x = family.draw_inputs(INPUTS, rng)
        sources = [[Layer(a.weight, a.bias) for a in net] for net in merge.sources]
        split = depth_bound(sources, x, activation=f, weights=weights)
        norm = np.linalg.norm(split.gap, axis=1)
        output = np.linalg.norm(forward(merge.merged, x, f), axis=1)
        ensemble = np.linalg.norm(forward(merge.merged, x, f) - split.gap, axis=1)
        bound.append(np.median(split.bound / norm))
        trivial.append(np.median(split.bound / (output + ensemble)))
        guesses = (split.estimate, second_order(merge, x, f), tangent_gap(merge, x, f))
        errors.append([np.mean((guess - split.gap) ** 2) for guess in guesses])
        sizes.append(np.mean(split.gap**2))
    left = np.sqrt(np.mean(errors, axis=0) / np.mean(sizes))
    return {
        "bound_over_gap": float(np.median(bound)),
        "bound_over_outputs": float(np.median(trivial)),
        "carried_error": float(left[0]),
        "second_order_error": float(left[1]),
        "from_bends": float(left[2]),
    }


def forward(network, x, f):
    for layer in network[:-1]:
        x = f(layer(x))
    return network[-1](x)


def second_order(merge: Merge, x: np.ndarray, f: Activation) -> np.ndarray:
    """-1/2 sum_i w_i D^2 f(theta)[delta_i, delta_i], by two derivatives carried up."""
    total = np.zeros((len(x), len(merge.base[-1].bias)))
    for w, source in zip(merge.weights, merge.sources, strict=True):
        a, first, second = x, np.zeros_like(x), np.zeros_like(x)
        for level, (layer, own) in enumerate(zip(merge.merged, source, strict=True), 1):
            step = own.weight - layer.weight
            h = layer(a)
            dh = first @ layer.weight.T + a @ step.T + own.bias - layer.bias
            ddh = second @ layer.weight.T + 2 * first @ step.T
            if level == len(source):
                total -= w / 2 * ddh
            a, first = f(h), f.derivative(h) * dh
            second = f.curvature(h) * dh**2 + f.derivative(h) * ddh
    return total


def tangent_gap(merge: Merge, x: np.ndarray, f: Activation) -> np.ndarray:
    """The gap with every activation replaced by its tangent at the merge's input."""
    a, own = x, [x] * len(merge.sources)
    for level, layer in enumerate(merge.merged):
        h = layer(a)
        hs = [source[level](b) for source, b in zip(merge.sources, own, strict=True)]
        a, own = f(h), [f(h) + f.derivative(h) * (each - h) for each in hs]
    return h - np.tensordot(merge.weights, hs, axes=1)


def gap_rows(*, networks: int) -> Iterator[dict]:
    points = [
        *(Point(name, sigma=sigma) for name in NAMES for sigma in SIGMAS),
        *(Point(name, depth=depth) for name in NAMES for depth in DEPTHS),
        *(Point(name, width=width) for name in NAMES for width in WIDTHS),
    ]
    for point in dict.fromkeys(points):
        yield gap_row(point, networks=networks)


def tables(found: dict) -> str:
    """The tables of docs/networks.md."""
    gaps = found["gap"]
    by_sigma = [g for g in gaps if (g["width"], g["depth"]) == (WIDTH, DEPTH)]
    by_depth = [g for g in gaps if (g["width"], g["sigma"]) == (WIDTH, SIGMA)]
    by_width = [g for g in gaps if (g["depth"], g["sigma"]) == (DEPTH, SIGMA)]
    parts = (
        node_table(found["node"]),
        gap_table(by_sigma, "sigma", SIGMAS),
        gap_table(by_depth, "depth", DEPTHS),
        width_table(by_width),
        share_table(by_sigma, "sigma", SIGMAS),
        share_table(by_depth, "depth", DEPTHS),
        expansion_table(by_sigma),
        bound_table(by_depth),
    )
    return "\n\n".join(parts)


def node_table(rows: list[dict]) -> str:
    labels = [f"layer {layer}" for layer in range(1, DEPTH + 1)]
    body = [
        [row["activation"], f"{row['sigma']:g}", label, *map(with_error, values)]
        for row in rows
        if row["sigma"] in (SIGMA, 1.0)
        for label, values in row["predicted_over_measured"].items()
    ]
    return markdown(["activation", "sigma", "predicted / measured", *labels], body)


def gap_table(rows: list[dict], axis: str, values: tuple) -> str:
    def cell(row: dict) -> str:
        gap, stderr = (x / row["sigma"] ** 2 for x in row["gap"])
        return f"{gap:.3f} ± {stderr:.3f} ({row['wide_gap'] / row['sigma'] ** 2:.3f})"

    return by_activation(rows, axis, values, cell)


def width_table(rows: list[dict]) -> str:
    def cell(row: dict) -> str:
        gap, stderr = (x / row["wide_gap"] for x in row["gap"])
        return f"{gap:.3f} ± {stderr:.3f}"

    return by_activation(rows, "width", WIDTHS, cell)


def share_table(rows: list[dict], axis: str, values: tuple) -> str:
    def cell(row: dict) -> str:
        shares = (row["mloss_share"][feed][0] for feed in FEEDS)
        return ", ".join(f"{share:.2f}" for share in shares)

    bent = [row for row in rows if row["activation"] != "identity"]
    return by_activation(bent, axis, values, cell)


def expansion_table(rows: list[dict]) -> str:
    def cell(row: dict) -> str:
        return f"{row['second_order_error']:.3f}, {row['carried_error']:.3f}"

    return by_activation(rows, "sigma", SIGMAS, cell)


def bound_table(rows: list[dict]) -> str:
    def cell(row: dict) -> str:
        return f"{row['bound_over_gap']:.2g}, {row['bound_over_outputs']:.2g}"

    return by_activation(rows, "depth", DEPTHS, cell)


def by_activation(
    rows: list[dict], axis: str, values: tuple, cell: Callable[[dict], str]
) -> str:
    names = list(dict.fromkeys(row["activation"] for row in rows))
    cells = {(row["activation"], row[axis]): cell(row) for row in rows}
    body = [[f"{value:g}", *(cells[name, value] for name in names)] for value in values]
    return markdown([axis, *names], body)


def with_error(mean: list[float]) -> str:
    value, stderr = mean
    return f"{value:.3f} ± {stderr:.3f}"


def markdown(header: list[str], body: list[list[str]]) -> str:
    rows = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few networks, not stored")
    parser.add_argument("--stored", action="store_true", help="print what is stored")
    options = parser.parse_args()
    if options.stored:
        print(tables(json.loads(RESULTS.read_text(encoding="utf-8"))))
        return
    networks = 20 if options.quick else 200
    found = {
        "networks": networks,
        "inputs": INPUTS,
        "node": list(node_rows(networks=networks)),
        "gap": list(gap_rows(networks=networks)),
    }
    if not options.quick:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(tables(found))


if __name__ == "__main__":
    main()

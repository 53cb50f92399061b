"""Every figure by name: compute with the other packages, then draw.

The one module here that knows them; the rest take arrays.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from scipy.special import stdtrit

from figures.agreement import Differences, agreement
from figures.expectation import Curves, ErrorMap, approximation_error, expectation
from figures.network import Dots, Prediction, merging_methods, node_map, predicted_gap
from figures.random_networks import GapSeries, LayerLosses, random_networks
from figures.validity import LEVELS, Region, validity
from mloss import digits
from mloss.correlation import rank_correlation
from simulate import estimate_mloss
from simulate.networks import (
    FEEDS,
    NetworkMeasurements,
    measure_networks,
    over_networks,
    ratio_over_networks,
)
from simulate.sweep import sweep
from theory import (
    estimated_mloss,
    expected_mloss,
    paper_approximation,
    total_variation,
)
from theory.density import density_law, normal_density
from theory.validity import excess, predicted_sigma
from theory.wide import wide_merge

Array: TypeAlias = npt.NDArray[np.float64]

ACTIVATIONS = {"relu": "ReLU", "leaky_relu": "Leaky ReLU", "gelu": "GELU"}
READINGS = {
    "k_outside_root": "printed, $k$ outside the root",
    "k_inside_root": "printed, $k$ inside the root",
}
FIXED_K = 10.0
FIXED_SIGMA = 1.0
AGREEMENT_RTOL = 1e-3  # of theory where it samples, in three standard errors
SAMPLES = 2_000_000  # a point; two standard errors are a quarter at k/sigma = 10,000

NODES_A_GROUP = 4
PREDICTOR_TITLES = {
    "second_order": "second-order functional",
    "layer_mloss_at_merge": "layer M-Loss, merge's inputs",
    "layer_mloss_at_base": "layer M-Loss, base's inputs",
    "theory": "expected M-Loss, exact",
    "printed": "expected M-Loss, as printed",
    "weight_distance": "weight distance",
}
METHOD_NAMES = {
    "base": "base",
    "experts": "each task's expert",
    "ensemble": "ensemble of outputs",
    "average": "simple average",
    "ties": "TIES",
    "ties_weighted_sum": "TIES, weighted sum",
    "ties_matched": "TIES, matched density",
    "uniform_rate": "row-wise, one rate",
    "m_ties": "M-TIES",
    "reversed_ranks": "M-TIES, ranks reversed",
    "random_ranks": "M-TIES, random ranks",
}


@dataclass(frozen=True)
class Plate:
    """A figure of the gallery: its caption and how to draw it from a seed."""

    caption: str
    draw: Callable[[int], Figure]


def draw_expectation(seed: int) -> Figure:
    """Exact, printed and simulated k E[D]/sigma^2, first at fixed k, then sigma."""
    rng = np.random.default_rng(seed)
    ratio, points = np.geomspace(2, 1e4, 100), np.geomspace(2, 1e4, 8)

    def curves(name: str, note: str, scales: Callable[[Array], Array]) -> Curves:
        k, sigma = scales(ratio)
        simulated, stderr = _simulated(name, *scales(points), rng=rng)
        return Curves(
            title=f"{ACTIVATIONS[name]}, {note}",
            ratio=ratio,
            exact=k / sigma**2 * expected_mloss(name, k, sigma),
            printed={
                label: k / sigma**2 * paper_approximation(name, k, sigma, reading=form)
                for form, label in READINGS.items()
                if name != "gelu" or form == "k_outside_root"  # its formula has no root
            },
            simulated_ratio=points,
            simulated=simulated,
            stderr=stderr,
            limit=total_variation(name) / 8,
        )

    def at_fixed_k(r: Array) -> Array:
        return np.stack([np.full_like(r, FIXED_K), FIXED_K / r])

    def at_fixed_sigma(r: Array) -> Array:
        return np.stack([FIXED_SIGMA * r, np.full_like(r, FIXED_SIGMA)])

    rows = (
        (f"$k = {FIXED_K:g}$", at_fixed_k),
        (rf"$\sigma = {FIXED_SIGMA:g}$", at_fixed_sigma),
    )
    return expectation(
        [[curves(name, note, scales) for name in ACTIVATIONS] for note, scales in rows]
    )


def _simulated(
    name: str, ks: Array, sigmas: Array, *, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Simulate k E[D]/sigma^2 at each point [p]; values and standard errors."""
    estimates = [
        estimate_mloss(name, float(k), float(sigma), n=SAMPLES, rng=rng)
        for k, sigma in zip(ks, sigmas, strict=True)
    ]
    unit = ks / sigmas**2
    values = np.array([estimate.value for estimate in estimates])
    return unit * values, unit * np.array([estimate.stderr for estimate in estimates])


def draw_agreement(seed: int) -> Figure:
    """Simulation over theory, less 1, over k/sigma, for two and more models."""
    table = sweep(
        list(ACTIVATIONS),
        (0.5, 3, 20, 1e2, 1e3, 1e4, 1e5, 1e6),
        [FIXED_SIGMA],
        qs=(2, 3, 8),
        n=2**21,
        rtol=2e-3,
        rng=np.random.default_rng(seed),
        workers=1,
    )
    rows = table.to_pylist()
    return agreement(
        {
            title: {
                f"{q} models": _differences(
                    [row for row in rows if (row["activation"], row["q"]) == (name, q)]
                )
                for q in (2, 3, 8)
            }
            for name, title in ACTIVATIONS.items()
        }
    )


def _differences(rows: Sequence[Mapping[str, Any]]) -> Differences:
    """Cells of one activation and q against theory, with 95 % intervals."""
    k, sigma, value, stderr, degrees = (
        np.array([row[name] for row in rows])
        for name in ("k", "sigma", "value", "stderr", "degrees")
    )
    claim = estimated_mloss(
        rows[0]["activation"], k, sigma, q=rows[0]["q"], rtol=AGREEMENT_RTOL
    )
    # Theory's error is three standard errors, where it samples too.
    spread = np.hypot(stderr, claim.error / 3)
    return Differences(
        ratio=k / sigma,
        difference=value / claim.value - 1,
        half_width=stdtrit(degrees, 0.975) * spread / claim.value,
    )


def draw_approximation_error(_seed: int) -> Figure:
    """Relative error of the printed formulas for ReLU and GELU, over (k, sigma)."""
    k, sigma = np.geomspace(0.1, 100, 80), np.geomspace(1e-3, 10, 80)
    formulas = {"relu": r"$\sigma^2/(\sqrt{2\pi}\,k)$", "gelu": r"$\sigma^2/(4k)$"}
    return approximation_error(
        [
            ErrorMap(
                title=f"{ACTIVATIONS[name]}, printed {formula}",
                k=k,
                sigma=sigma,
                error=paper_approximation(name, k, sigma[:, None])
                / expected_mloss(name, k, sigma[:, None])
                - 1,
            )
            for name, formula in formulas.items()
        ]
    )


def draw_validity(_seed: int) -> Figure:
    """Where the total-variation law is good to 1, 5 and 10 %, over (k, sigma)."""
    titles = {"relu": "ReLU", "gelu": "GELU", "silu": "SiLU"}
    return validity([_region(name, title) for name, title in titles.items()])


def _region(name: str, title: str) -> Region:
    points = 18 if name == "silu" else 60  # SiLU takes a slower quadrature
    k, sigma = np.geomspace(1, 100, points), np.geomspace(0.03, 30, points)
    nowhere = np.zeros((len(LEVELS), points))  # a kink has no such expansion
    return Region(
        title=title,
        k=k,
        sigma=sigma,
        excess=excess(name, k, sigma[:, None]),
        predicted=nowhere
        if name == "relu"
        else np.stack([predicted_sigma(name, k, within=p / 100) for p in LEVELS]),
    )


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


def draw_node_map(seed: int) -> Figure:
    """Node M-Loss of the embedded experts (the paper's Figure 3)."""
    models = digits.load_digits_models(seed=seed)
    scored = digits.node_map(models, learning_rate=_middle_rate(models))
    sites, nodes = scored.mloss.shape
    groups = scored.mloss.reshape(sites, nodes // NODES_A_GROUP, NODES_A_GROUP)
    means = groups.mean(axis=-1)
    return node_map(means, layers=scored.layers, group_size=NODES_A_GROUP)


def draw_predicted_gap(seed: int) -> Figure:
    """Predictors of the gap of every pair of embedded fine-tunes."""
    models = digits.load_digits_models(seed=seed)
    study = digits.pair_study(models)
    tasks = np.array([tuned.task for tuned in models.fine_tunes])[study.members]
    same_task = tasks[:, 0] == tasks[:, 1]
    rng = np.random.default_rng(seed)

    def prediction(name: str, title: str) -> Prediction:
        values = study.predictors[name]
        found = rank_correlation(values, study.gap, members=study.members, rng=rng)
        return Prediction(
            title=title,
            predicted=values,
            correlation=(found.value, found.low, found.high),
            in_gap_units=name != "weight_distance",
        )

    return predicted_gap(
        study.gap,
        [prediction(name, title) for name, title in PREDICTOR_TITLES.items()],
        kinds=np.where(same_task, "one task, two rates", "two tasks").tolist(),
    )


def draw_merging_methods(seed: int) -> Figure:
    """Merges of the embedded experts: test accuracy and gap to the ensemble."""
    models = digits.load_digits_models(seed=seed)
    table = digits.merge_table(models, learning_rate=_middle_rate(models))
    rescaled = [name for name in table.gap if name.endswith("_rescaled")]
    merged = [name for name in table.gap if name not in rescaled]
    references = [name for name in table.correct if name not in table.gap]

    def accuracy(label: str, names: Sequence[str]) -> Dots:
        means = [table.mean_accuracy(name) for name in names]
        return _dots(label, names, [m.value for m in means], [m.stderr for m in means])

    def gap(label: str, names: Sequence[str]) -> Dots:
        values = [table.gap[name] for name in names]
        return _dots(label, names, values, [table.gap_stderr[name] for name in names])

    return merging_methods(
        list(METHOD_NAMES.values()),
        accuracy=[
            accuracy("merged", merged),
            accuracy("merged and rescaled", rescaled),
            accuracy("reference", references),
        ],
        gap=[gap("merged", merged), gap("merged and rescaled", rescaled)],
    )


def _dots(
    label: str, names: Sequence[str], values: Sequence[float], stderr: Sequence[float]
) -> Dots:
    # "random_ranks_2_rescaled", say, belongs to the row of "random_ranks".
    families = [name.removesuffix("_rescaled").rstrip("_0123456789") for name in names]
    rows = [METHOD_NAMES[family] for family in families]
    return Dots(label, rows, np.array(values), np.array(stderr))


def _middle_rate(models: digits.DigitsModels) -> float:
    rates = sorted(models.recipe.learning_rates)
    return rates[len(rates) // 2]


GALLERY: Mapping[str, Plate] = {
    "expectation": Plate(
        "Expected node M-Loss of two models in units of sigma^2/k: exact, simulated "
        "(bars are two standard errors) and as the paper prints it. Above, sigma "
        "shrinks at fixed k; below, k grows at fixed sigma, and the reading with k "
        "inside the root leaves the axes.",
        draw_expectation,
    ),
    "agreement": Plate(
        "Expected node M-Loss simulated from the definition, relative to theory's "
        "value. Bars are 95 % intervals, of which one in twenty misses zero.",
        draw_agreement,
    ),
    "approximation_error": Plate(
        "Relative error of the paper's approximations over (k, sigma). On the dashed "
        "line sigma = k; the formulas are meant for k well above sigma, below it.",
        draw_approximation_error,
    ),
    "validity": Plate(
        "Where the total-variation law TV V/(4k) is within 1, 5 and 10 % of the exact "
        "expected M-Loss of two models. ReLU asks for k/sigma alone; a smooth bend "
        "also for a range that covers it and for errors narrower than it.",
        draw_validity,
    ),
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
    "node_map": Plate(
        "Node M-Loss of the embedded network's experts, averaged over unlabelled "
        "digits and over groups of consecutive nodes (as the paper's Figure 3).",
        draw_node_map,
    ),
    "predicted_gap": Plate(
        "Distance of a merge's features from the ensemble's, for every pair of the "
        "embedded fine-tunes, against what predicts it. Rank correlations carry a "
        "95 % bootstrap interval over models. Where predictor and gap have one unit, "
        "the line marks equal sizes.",
        draw_predicted_gap,
    ),
    "merging_methods": Plate(
        "Merges of the embedded network's experts, as they come and with the step "
        "from the base rescaled on validation images: mean test accuracy, and the "
        "distance to the ensemble's features. Bars are two standard errors over "
        "images; every random draw of ranks is a dot. All methods answer the same "
        "images, so their differences are sharper than the bars.",
        draw_merging_methods,
    ),
}

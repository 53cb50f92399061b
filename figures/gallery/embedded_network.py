"""Figures of the embedded network and its fine-tunes, scored and merged."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from figures.gallery.plate import Plate
from figures.network import Dots, Prediction, merging_methods, node_map, predicted_gap
from mloss import digits
from mloss.correlation import rank_correlation

Array: TypeAlias = npt.NDArray[np.float64]

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


PLATES = {
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

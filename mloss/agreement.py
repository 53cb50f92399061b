"""How well each prediction orders and sizes the measured node M-Loss."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor

from mloss.score import Score, SiteScore

# What a prediction is called, and the field of a SiteScore that holds it.
PREDICTIONS: Mapping[str, str] = MappingProxyType(
    {
        "paper": "paper_prediction",
        "uniform": "prediction",
        "density": "density_prediction",
        "data-free": "data_free_prediction",
    }
)


@dataclass(frozen=True)
class Agreement:
    """Of one prediction with the measurement, over the nodes of one site or of all.

    `rank_correlation` is Spearman's, None where either is constant. `ratio` is the
    geometric mean of predicted over measured, and two thirds of the nodes lie within
    a factor of about `spread` of it; both leave out nodes where one of them is zero,
    and are None where that is all.
    """

    prediction: str
    layer_name: str | None
    nodes: int
    rank_correlation: float | None
    ratio: float | None
    spread: float | None


def agreements(score: Score) -> tuple[Agreement, ...]:
    """Agreement of every prediction, site by site and (layer_name None) over all."""
    return tuple(
        _agreement(name, layer, predicted, measured)
        for name in PREDICTIONS
        for layer, predicted, measured in _rows(score, name)
    )


def predictions(site: SiteScore) -> dict[str, Float[Tensor, " node"]]:
    """Those that there are for a site, by name."""
    found = {name: getattr(site, field) for name, field in PREDICTIONS.items()}
    return {name: value for name, value in found.items() if value is not None}


def _rows(score: Score, name: str) -> Iterator[tuple[str | None, Tensor, Tensor]]:
    known = [s for s in score.sites if name in predictions(s)]
    for site in known:
        yield site.layer_name, predictions(site)[name], site.node
    if len(known) > 1:
        predicted = torch.cat([predictions(site)[name].cpu() for site in known])
        yield None, predicted, torch.cat([site.node.cpu() for site in known])


def _agreement(
    name: str, layer: str | None, predicted: Tensor, measured: Tensor
) -> Agreement:
    x, y = predicted.cpu().double(), measured.cpu().double()
    varied = bool((x != x[0]).any() and (y != y[0]).any())
    both = (x > 0) & (y > 0)
    logs = (x[both] / y[both]).log()
    return Agreement(
        prediction=name,
        layer_name=layer,
        nodes=len(x),
        rank_correlation=float(spearmanr(x, y).statistic) if varied else None,
        ratio=logs.mean().exp().item() if len(logs) else None,
        spread=logs.std(correction=0).exp().item() if len(logs) else None,
    )

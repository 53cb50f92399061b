"""The score of every layer as one row."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mloss.agreement import PREDICTIONS, Agreement
from mloss.report.numbers import finite
from mloss.score import Score, SiteScore


@dataclass(frozen=True)
class LayerRow:
    """One layer of a score.

    `mloss` is the mean of Eq. 3 with its standard error, `relative` that of Eq. 6,
    `share` the part of `mloss` in the sum over all layers (None where that is zero).
    `ratios` holds predicted over measured node M-Loss by prediction, the geometric
    mean over nodes (None where there is none). `worst_node` is the node with the
    largest M-Loss. What cannot be known of one sample is None.
    """

    layer: str
    activation: str
    nodes: int
    mloss: float
    stderr: float | None
    relative: float
    share: float | None
    ratios: dict[str, float | None]
    worst_node: int
    worst_mloss: float


def layer_rows(score: Score, agreements: Sequence[Agreement]) -> tuple[LayerRow, ...]:
    """One row a site, in forward order; the ratios are those of `agreements`."""
    ratios = {(a.layer_name, a.prediction): a.ratio for a in agreements}
    return tuple(
        _row(
            site,
            share=share,
            ratios={n: ratios.get((site.layer_name, n)) for n in PREDICTIONS},
        )
        for site, share in zip(score.sites, shares(score), strict=True)
    )


def shares(score: Score) -> tuple[float | None, ...]:
    """Each layer's part of the sum of all layers' M-Loss; None where that is zero."""
    total = math.fsum(site.layer for site in score.sites)
    return tuple(s.layer / total if total > 0 else None for s in score.sites)


def _row(
    site: SiteScore, *, share: float | None, ratios: dict[str, float | None]
) -> LayerRow:
    worst = int(site.node.argmax())
    return LayerRow(
        layer=site.layer_name,
        activation=site.activation_name,
        nodes=len(site.node),
        mloss=site.layer,
        stderr=finite(site.layer_stderr),
        relative=site.layer_normalized,
        share=share,
        ratios=ratios,
        worst_node=worst,
        worst_mloss=site.node[worst].item(),
    )

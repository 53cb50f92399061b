"""M-Loss on real networks: the metric, its prediction, and merging with it."""

from mloss.definitions import layer_mloss, node_mloss
from mloss.gap import Gap, gap
from mloss.merging import Merged, merge
from mloss.score import Score, SiteScore, score
from mloss.sites import Site, find_sites

__all__ = [
    "Gap",
    "Merged",
    "Score",
    "Site",
    "SiteScore",
    "find_sites",
    "gap",
    "layer_mloss",
    "merge",
    "node_mloss",
    "score",
]

"""Where the merged-vs-ensemble gap comes from, and which models of a pool to merge."""

from mloss.curvature.best_weights import best_weights
from mloss.curvature.confirm import Confirmed, confirm
from mloss.curvature.groups import ParameterGroup, parameter_groups
from mloss.curvature.parts import GapParts, explain_gap
from mloss.curvature.pool import Pool, gap_pool
from mloss.curvature.search import Found, search
from mloss.curvature.second_derivative import second_derivative
from mloss.curvature.second_order import second_order_gap
from mloss.curvature.subsets import Candidate, Ranking, rank_subsets
from mloss.curvature.wording import in_words

__all__ = [
    "Candidate",
    "Confirmed",
    "Found",
    "GapParts",
    "ParameterGroup",
    "Pool",
    "Ranking",
    "best_weights",
    "confirm",
    "explain_gap",
    "gap_pool",
    "in_words",
    "parameter_groups",
    "rank_subsets",
    "search",
    "second_derivative",
    "second_order_gap",
]

"""Merging weights that bring a merge nearest to a given ensemble."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, minimize

from mloss.curvature.pool import Pool
from mloss.curvature.subsets import Candidate
from mloss.weights import Weights, merging_weights

Array = NDArray[np.float64]  # [member]


def best_weights(
    pool: Pool, members: Sequence[int], *, ensemble: Weights = None
) -> Candidate:
    """Weights of a merge with the smallest predicted distance to the ensemble.

    `ensemble` holds the output weights of the `members`, by default equal ones. They
    are fixed: with one set of weights for both sides, the best merge is always next
    to a single model, which has no gap at all. The predicted distance may have more
    than one minimum; descent (SLSQP) starts at the ensemble's own weights.

    Raises ValueError for fewer than two members, those that `Pool.among` refuses, and
    weights that `merging_weights` refuses.
    """
    if len(members) < 2:
        raise ValueError(f"members must hold at least two models, got {members}")
    within = pool.among(members)
    alpha = merging_weights(ensemble, q=len(members)).numpy()
    weights = _descended(within, alpha)
    return Candidate(
        members=tuple(members),
        weights=tuple(weights.tolist()),
        ensemble=tuple(alpha.tolist()),
        predicted_gap=within.predicted_gap(weights.tolist(), ensemble=alpha.tolist()),
    )


def _descended(pool: Pool, ensemble: Array) -> Array:
    """Where descent on the simplex ends; the ensemble's weights if nothing is won."""
    first, second = np.triu_indices(pool.models, k=1)

    def distance_and_slope(w: Array) -> tuple[float, Array]:
        amounts = pool.amounts(w, ensemble)
        pulls = np.einsum("vws,w->vs", pool.gram, amounts)
        norms = np.sqrt(np.einsum("v,vs->s", amounts, pulls).clip(min=0))
        by_vector = (pulls / np.where(norms > 0, norms, 1)).mean(axis=-1)
        slope, by_pair = by_vector[: pool.models].copy(), by_vector[pool.models :]
        np.add.at(slope, first, 4 * w[second] * by_pair)
        np.add.at(slope, second, 4 * w[first] * by_pair)
        return float(norms.mean()), slope

    found = minimize(
        distance_and_slope,
        ensemble,
        jac=True,
        method="SLSQP",
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(np.ones((1, pool.models)), 1, 1),
    )
    if not found.fun < distance_and_slope(ensemble)[0]:
        return ensemble
    end: Array = np.clip(found.x, 0, 1)
    end /= end.sum()
    return end

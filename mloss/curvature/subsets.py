"""Which subset of a pool, merged by plain averaging, comes nearest its ensemble."""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from mloss.curvature.pool import Pool

_CHUNK = 2**24  # inner products held at a time
_BEAM = 256


@dataclass(frozen=True)
class Candidate:
    """A merge of some models in a pool, by their positions.

    `weights` are those of the merge, `ensemble` those of the outputs it is held
    against, and `predicted_gap` is the distance foretold between the two.
    """

    members: tuple[int, ...]
    weights: tuple[float, ...]
    ensemble: tuple[float, ...]
    predicted_gap: float


@dataclass(frozen=True)
class Ranking:
    """The best candidates, smallest gap first.

    `tried` counts the subsets looked at; `exhaustive` says whether they were all.
    """

    candidates: tuple[Candidate, ...]
    tried: int
    exhaustive: bool


def rank_subsets(
    pool: Pool, *, size: int, top: int = 10, limit: int = 50_000
) -> Ranking:
    """The `top` subsets of `size` models with the smallest gaps, equal weights.

    Looks at every subset where there are at most `limit` of them. Beyond that it is a
    beam search: pairs first, then again and again each of the 256 best subsets with
    each further model. That may miss the best, and says so in `exhaustive`.

    Raises ValueError unless 2 <= size <= models, top >= 1 and limit >= 1.
    """
    if not 2 <= size <= pool.models:
        raise ValueError(f"size lies between 2 and {pool.models}, got {size}")
    if top < 1 or limit < 1:
        raise ValueError(f"top and limit must be >= 1, got {top} and {limit}")
    exhaustive = size == 2 or math.comb(pool.models, size) <= limit
    members = np.array(
        list(combinations(range(pool.models), size if exhaustive else 2))
    )
    gaps = _gaps(pool, members)
    tried = len(members)
    while members.shape[1] < size:
        members = _extended(members[np.argsort(gaps)[:_BEAM]], models=pool.models)
        gaps = _gaps(pool, members)
        tried += len(members)
    best = np.argsort(gaps, kind="stable")[:top]
    equal = (1 / size,) * size
    candidates = tuple(
        Candidate(tuple(members[i].tolist()), equal, equal, gaps[i].item())
        for i in best
    )
    return Ranking(candidates, tried, exhaustive)


def _gaps(
    pool: Pool, members: Int[np.ndarray, "subset member"]
) -> Float[np.ndarray, " subset"]:
    """Mean over samples of |sum_{i<j} 4/k^2 c_ij| for each subset of k models."""
    count = members.shape[1]
    first, second = np.triu_indices(count, k=1)
    chosen = pool.pair_positions()[members[:, first], members[:, second]]
    rows = max(1, _CHUNK // (len(first) ** 2 * pool.samples))
    gaps = [
        np.sqrt(
            pool.gram[part[:, :, None], part[:, None, :]]
            .sum(axis=(1, 2), dtype=np.float64)
            .clip(min=0)
        ).mean(axis=-1)
        for part in np.array_split(chosen, -(-len(chosen) // rows))
    ]
    found: NDArray[np.float64] = np.concatenate(gaps) * 4 / count**2
    return found


def _extended(
    members: Int[np.ndarray, "subset member"], *, models: int
) -> Int[np.ndarray, "larger member_and_one"]:
    """Every subset with every model it lacks, each result once and sorted."""
    larger = {
        tuple(sorted((*subset, extra)))
        for subset in members.tolist()
        for extra in range(models)
        if extra not in subset
    }
    return np.array(sorted(larger))

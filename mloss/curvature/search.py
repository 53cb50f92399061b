"""The best merges of a pool, foretold from its pairs and then measured."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from mloss.batches import Data
from mloss.curvature.best_weights import best_weights
from mloss.curvature.confirm import Confirmed, confirm
from mloss.curvature.pool import Pool
from mloss.curvature.subsets import Ranking, rank_subsets
from mloss.states import State


@dataclass(frozen=True)
class Found:
    """The best subsets of one size.

    `ranking` is what the pool foretells; `equal` are its candidates, measured, the
    smallest gap first. `weighted` is the first of them again, measured with the
    weights that are foretold to bring it nearest to the same ensemble.
    """

    size: int
    ranking: Ranking
    equal: tuple[Confirmed, ...]
    weighted: Confirmed


def search(
    pool: Pool,
    model: nn.Module,
    sources: Sequence[nn.Module | State],
    *,
    data: Data,
    sizes: Iterable[int],
    top: int = 5,
) -> tuple[Found, ...]:
    """Look for the `top` subsets of each size and measure their gaps.

    `model`, `sources` and `data` are those of the pool. Each source runs once more and
    each candidate once. Raises ValueError as `rank_subsets` and `mloss.gap` do.
    """
    rankings = [rank_subsets(pool, size=size, top=top) for size in sizes]
    tuned = [best_weights(pool, r.candidates[0].members) for r in rankings]
    wanted = [c for r in rankings for c in r.candidates] + tuned
    measured = confirm(model, sources, wanted, data=data)
    by_candidate = {id(one.candidate): one for one in measured}
    return tuple(
        _found(ranking, weighted=by_candidate[id(weighted)], measured=measured)
        for ranking, weighted in zip(rankings, tuned, strict=True)
    )


def _found(
    ranking: Ranking, *, weighted: Confirmed, measured: Sequence[Confirmed]
) -> Found:
    # Of twins in a pool, different candidates are equal: they are told apart by id.
    own = {id(candidate) for candidate in ranking.candidates}
    equal = tuple(one for one in measured if id(one.candidate) in own)
    return Found(len(ranking.candidates[0].members), ranking, equal, weighted)

"""Consensus merging: keep what enough tasks use (TALL-masks, Wang et al. 2024)."""

import math
from collections.abc import Iterable

from jaxtyping import Bool, Float
from torch import Tensor, nn

from mloss.merging.pruning.counted import counted
from mloss.merging.registry import merging_method
from mloss.merging.task_vectors import PieceStep, moved_by_tiles
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights, weighted_sum


@merging_method(source="Wang et al. 2024 (arXiv 2405.07813)")
def consensus(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    weights: Weights = None,
    mask_scale: float = 0.4,
    threshold: int = 2,
    scale: float = 1.0,
) -> State:
    """Task arithmetic on the entries that at least `threshold` of the sources use.

    Source i with task vector t_i uses an entry where |t_i| > mask_scale * |T - t_i|,
    its TALL-mask (`tall_mask`); T, the multi-task vector, is the sum of the task
    vectors, q sum_i w_i t_i. Where fewer use it the entry is the base's, elsewhere
    theta + scale * sum_i w_i t_i: the authors' scaling coefficient is scale / q.
    Threshold 0 is `task_arithmetic`, 1 drops what nobody uses, 2, their choice, also
    what is of use to one only, so that of one source nothing is left. They pick
    mask_scale for each task from 0.2 to 0.6 on validation data; ours is the middle, for
    all. Sources of weight 0 are left out.

    Raises ValueError for a mask_scale that is negative or not finite, a negative
    threshold, a scale that is not finite, and models or weights that do not fit.
    """
    if not 0 <= mask_scale < math.inf:
        raise ValueError(f"mask_scale must be finite and >= 0, got {mask_scale}")
    if threshold < 0:
        raise ValueError(f"threshold counts sources and must be >= 0, got {threshold}")
    start, every = matched(base, sources)
    states, w = counted(every, merging_weights(weights, q=len(every)))

    def combined(vectors: Float[Tensor, "q value"], _: int) -> Float[Tensor, " value"]:
        mean = weighted_sum(w, vectors)
        used = tall_mask(vectors, len(vectors) * mean, mask_scale=mask_scale)
        return mean.where(used.sum(0) >= threshold, 0)

    def step(_: str) -> PieceStep:
        return combined

    return moved_by_tiles(start, states, combine=step, scale=scale)


def tall_mask(
    vectors: Float[Tensor, "q *shape"],
    total: Float[Tensor, "*shape"],
    *,
    mask_scale: float,
) -> Bool[Tensor, "q *shape"]:
    """Which entries of the total serve each source: |t_i| > mask_scale |total - t_i|.

    The authors' text has >= and their program >.
    """
    return vectors.abs() > mask_scale * (total - vectors).abs()

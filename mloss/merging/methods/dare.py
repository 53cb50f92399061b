"""DARE: keep entries at random and rescale them, then merge (Yu et al. 2024)."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.merging.chance import chance_by_entry
from mloss.merging.elect import Combine, combine_elected
from mloss.merging.registry import merging_method
from mloss.merging.task_vectors import moved_by_entry
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights


@merging_method(source="Yu et al. 2024 (arXiv 2311.03099)")
def dare(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    generator: torch.Generator,
    weights: Weights = None,
    density: float = 0.2,
    scale: float = 1.0,
    combine: Combine = "disjoint_mean",
) -> State:
    """`ties` with its trimming replaced as section 2.3 of the paper describes.

    Each entry of a task vector is kept with probability `density` and then divided by
    it, so that its mean is unchanged; election and combination are those of `ties`.
    Raises ValueError for a density outside (0, 1] and as `ties` does, and TypeError
    for another kind of generator.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density must be a fraction in (0, 1], got {density}")
    chance = chance_by_entry(generator)
    start, states = matched(base, sources)
    w = merging_weights(weights, q=len(states))

    def step(key: str, vectors: Float[Tensor, "q *shape"]) -> Float[Tensor, "*shape"]:
        own = chance(key)
        draws = torch.rand(vectors.shape, generator=own, device=own.device)
        kept = vectors.where(draws.to(vectors.device) < density, 0) / density
        return combine_elected(kept, w, combine=combine)

    return moved_by_entry(start, states, combine=step, scale=scale)

"""DARE: keep entries at random and rescale them, then merge (Yu et al. 2024)."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.merging.elect import Combine, combine_elected
from mloss.merging.task_vectors import moved_by_entry
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights


def dare(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    generator: torch.Generator,
    weights: Weights = None,
    density: float = 0.2,
    scale: float = 1.0,
    combine: Combine = "disjoint_mean",
) -> dict[str, Tensor]:
    """`ties` with its trimming replaced as section 2.3 of the paper describes.

    Each entry of a task vector is kept with probability `density` and then divided by
    it, so that its mean is unchanged; election and combination are those of `ties`.
    Raises ValueError for a density outside (0, 1] and as `ties` does, and TypeError
    for another kind of generator.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density must be a fraction in (0, 1], got {density}")
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator, got {type(generator).__name__}"
        )
    start, states = matched(base, sources)
    w = merging_weights(weights, q=len(states))

    def step(vectors: Float[Tensor, "q *shape"]) -> Float[Tensor, "*shape"]:
        draws = torch.rand(
            vectors.shape, generator=generator, device=generator.device
        ).to(vectors.device)
        kept = vectors.where(draws < density, 0) / density
        return combine_elected(kept, w, combine=combine)

    return moved_by_entry(start, states, combine=step, scale=scale)

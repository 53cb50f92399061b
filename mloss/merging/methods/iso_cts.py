"""Iso-CTS: Iso-C with some directions of each task's own (Marczak et al. 2025)."""

from collections.abc import Collection, Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.merging.registry import merging_method
from mloss.merging.spectra.spectrum import (
    isotropic,
    joined,
    orthogonalised,
    spectra,
    spectrum,
)
from mloss.merging.spectra.task_matrices import moved_by_matrix
from mloss.one_thread import one_thread
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights


@merging_method(source="Marczak et al. 2025 (arXiv 2502.04959), Iso-CTS")
def iso_cts(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    weights: Weights = None,
    common: float = 0.8,
    scale: float = 1.0,
    exclude: Collection[str] = (),
) -> State:
    """`iso_c` with the least of its directions replaced by each task's largest.

    Of the r directions of the sum of n task matrices (r its smaller side) the fraction
    `common` is kept, the largest first. The rest are shared out evenly: each task fills
    its part with the largest directions of its own task matrix once the common left
    ones are projected out. All together are made orthonormal (`orthogonalised`) and get
    their mean size. By the authors' rule each task has (r - int(common r)) / n of them,
    rounded to the nearest whole number and halves to the even one, but never more than
    r // n, and the common part has the others.

    Weights, `scale`, `exclude`, what is no matrix and directions of no size are as for
    `iso_c`. Raises ValueError for a fraction outside [0, 1] and as `iso_c` does.
    """
    if not 0 <= common <= 1:
        raise ValueError(f"common must be a fraction in [0, 1], got {common}")
    start, states = matched(base, sources)
    w = merging_weights(weights, q=len(states))

    def joint(matrices: list[Float[Tensor, "out in"]]) -> Float[Tensor, "out in"]:
        rank, n = min(matrices[0].shape), len(matrices)
        own = min(round((rank - int(common * rank)) / n), rank // n)
        shared = spectrum(torch.stack(matrices).sum(dim=0)).largest(rank - n * own)
        tasks = spectra([_without(matrix, shared.left) for matrix in matrices])
        parts = [shared, *(task.largest(own) for task in tasks)]
        return isotropic(orthogonalised(joined(parts))).matrix()

    return moved_by_matrix(
        start, states, weights=w, joint=joint, scale=scale, exclude=exclude
    )


def _without(
    matrix: Float[Tensor, "out in"], left: Float[Tensor, "out rank"]
) -> Float[Tensor, "out in"]:
    """A matrix with its part in the span of orthonormal columns projected out."""
    with one_thread():
        return matrix - left @ (left.mT @ matrix)

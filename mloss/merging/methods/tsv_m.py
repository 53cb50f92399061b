"""TSV-Merge: low-rank task matrices with their singular vectors made orthogonal."""

from collections.abc import Collection, Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.merging.registry import merging_method
from mloss.merging.spectra.spectrum import joined, orthogonalised, spectra
from mloss.merging.spectra.task_matrices import moved_by_matrix
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights


@merging_method(source="Gargiulo et al. 2024 (arXiv 2412.00081)")
def tsv_m(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    weights: Weights = None,
    scale: float = 1.0,
    exclude: Collection[str] = (),
) -> State:
    """Theta + scale * U diag(s) V for each matrix, the mean step for all else.

    Of the task matrix of each of n sources the largest r // n singular values stay, r
    its smaller side. Their vectors, side by side for all sources, are replaced by the
    nearest orthonormal ones (`orthogonalised`), and s is the singular values. Task
    matrices are taken times n w_i: at equal weights as they are. A matrix with a side
    shorter than n, and any key in `exclude`, is averaged like vectors and kernels;
    embeddings are matrices. The authors exclude CLIP's text projection.

    One source is returned. Unlike the authors' code, singular values of no size take no
    part (their vectors are arbitrary, yet would turn the others), so that sources equal
    to each other or of low rank have a merge that is defined. A 3072 x 768 matrix of
    eight sources in float32 takes 4 s of one core.

    Raises ValueError for a scale that is not finite, an unknown key in `exclude`, and
    models or weights that do not fit.
    """
    start, states = matched(base, sources)
    w = merging_weights(weights, q=len(states))

    def joint(matrices: list[Float[Tensor, "out in"]]) -> Float[Tensor, "out in"]:
        rank = min(matrices[0].shape) // len(matrices)
        if rank == 0:
            return torch.stack(matrices).mean(dim=0)
        parts = [each.largest(rank) for each in spectra(matrices)]
        return orthogonalised(joined(parts)).matrix()

    return moved_by_matrix(
        start, states, weights=w, joint=joint, scale=scale, exclude=exclude
    )

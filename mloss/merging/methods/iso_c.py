"""Iso-C: the sum of task matrices with all singular values alike (Marczak 2025)."""

from collections.abc import Collection, Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.merging.registry import merging_method
from mloss.merging.spectra.spectrum import isotropic, spectrum
from mloss.merging.spectra.task_matrices import moved_by_matrix
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights


@merging_method(source="Marczak et al. 2025 (arXiv 2502.04959), Iso-C")
def iso_c(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    weights: Weights = None,
    scale: float = 1.0,
    exclude: Collection[str] = (),
) -> State:
    """Theta + scale * mean(s) U V for each matrix, the mean step for all else.

    U diag(s) V is the singular value decomposition of the sum of the task matrices,
    each times n w_i for n sources: at equal weights as they are. Keys in `exclude` are
    averaged like vectors and kernels; embeddings are matrices. The authors exclude
    CLIP's text projection and choose `scale` on validation data; 1 is FusionBench's.

    One source is not returned: its singular values are made alike too. Directions of no
    size stay so, and do not count in the mean; in the authors' code those of a sum of
    low rank get the mean size in arbitrary directions.

    Raises ValueError for a scale that is not finite, an unknown key in `exclude`, and
    models or weights that do not fit.
    """
    start, states = matched(base, sources)
    w = merging_weights(weights, q=len(states))

    def joint(matrices: list[Float[Tensor, "out in"]]) -> Float[Tensor, "out in"]:
        return isotropic(spectrum(torch.stack(matrices).sum(dim=0))).matrix()

    return moved_by_matrix(
        start, states, weights=w, joint=joint, scale=scale, exclude=exclude
    )

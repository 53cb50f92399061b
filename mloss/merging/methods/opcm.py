"""OPCM: sources one by one, each without what is there already (Tang et al. 2025)."""

from collections.abc import Collection, Iterable, Sequence
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.merging.entries import Entrywise
from mloss.merging.registry import merging_method
from mloss.merging.set_aside import SetAside
from mloss.merging.spectra.spectrum import spectrum
from mloss.merging.spectra.task_matrices import excluded, weighted_task_vectors
from mloss.merging.task_vectors import moved
from mloss.one_thread import one_thread
from mloss.states import State, matched, mergeable
from mloss.weights import Weights, merging_weights


@merging_method(source="Tang et al. 2025 (arXiv 2501.09522)")
def opcm(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    weights: Weights = None,
    alpha: float = 0.5,
    exclude: Collection[str] = (),
) -> State:
    """Theta + (mean_i |t_i| / |S|) S, S the sum of the task vectors t_i, projected.

    The sources come in their order, which matters. Of each matrix the first task matrix
    enters the sum whole; from every later one is removed what the sum so far has
    already (`unlike`). Everything else (vectors, kernels, keys in `exclude`) is summed.
    The lengths |.| are over the whole model: this is the recursion of the paper, in
    which the scaling lambda of every step but the last cancels.

    Task vectors are taken times n w_i for the n sources that have weight: at equal
    weights as they are. One source is returned. The authors' code projects the weights
    of linear layers only (exclude the embeddings for the same) and shuffles the
    sources. Writes a temporary file as large as one model.

    Raises ValueError for an alpha outside [0, 1], an unknown key in `exclude`, and
    models or weights that do not fit.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be a fraction in [0, 1], got {alpha}")
    start, states = matched(base, sources)
    w = merging_weights(weights, q=len(states))
    only_summed = excluded(start, exclude)

    def with_what_is_new(total: Tensor, matrix: Tensor) -> Tensor:
        return total + unlike(matrix, total, alpha=alpha)

    sums, squares = SetAside(), torch.zeros(1, dtype=torch.float64)
    for key, value in start.items():
        if mergeable(value):
            vectors = weighted_task_vectors(start, states, key, w)
            whole = value.ndim != 2 or key in only_summed
            joint = reduce(torch.add if whole else with_what_is_new, vectors)
            sums.put(key, joint)
            squares = squares + _squared_lengths([joint, *vectors])
    length, *lengths = squares.sqrt().tolist()
    ratio = sum(lengths) / len(lengths) / length if length > 0 else 0.0

    def merged(key: str) -> Tensor:
        return moved(start[key], ratio * sums[key].double())

    return Entrywise(start, merged)


def unlike(
    matrix: Float[Tensor, "out in"], seen: Float[Tensor, "out in"], *, alpha: float
) -> Float[Tensor, "out in"]:
    """A matrix without what lies along the singular vectors u_j, v_j of another.

    Its parts u_j v_j' are removed for every j, and its parts u_i v_j' for all i and j
    up to the rank to which the singular values sum to at most the fraction alpha of
    their sum. The rank is that of the authors' code, but at alpha 1, where that removes
    only the former. Singular vectors of no size are none.
    """
    of = spectrum(seen)
    cumulated = of.sizes.double().cumsum(dim=0)
    rank = int((cumulated <= alpha * cumulated[-1:]).sum())
    with one_thread():
        parts = of.left.mT @ matrix @ of.right.mT
        removed = parts.diagonal().diag()
        removed[:rank, :rank] = parts[:rank, :rank]
        return matrix - of.left @ removed @ of.right


def _squared_lengths(vectors: Sequence[Tensor]) -> Float[Tensor, " vector"]:
    with one_thread():
        lengths = [torch.linalg.vector_norm(v, dtype=torch.float64) for v in vectors]
    return torch.stack(lengths).square().cpu()

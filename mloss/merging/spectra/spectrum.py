"""Singular values and vectors of a matrix, without directions of no size."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mloss.one_thread import one_thread


@dataclass(frozen=True)
class Spectrum:
    """left diag(sizes) right, the sizes positive and falling."""

    left: Float[Tensor, "out rank"]
    sizes: Float[Tensor, " rank"]
    right: Float[Tensor, "rank in"]

    def largest(self, count: int) -> "Spectrum":
        """Keep `count` singular values, or all where there are fewer."""
        return Spectrum(self.left[:, :count], self.sizes[:count], self.right[:count])

    def matrix(self) -> Float[Tensor, "out in"]:
        """The matrix of this spectrum."""
        with one_thread():
            return (self.left * self.sizes) @ self.right


def spectrum(matrix: Float[Tensor, "out in"]) -> Spectrum:
    """Thin singular value decomposition, in the precision of the matrix.

    Singular values that rounding makes out of zeros are left out, since their vectors
    mean nothing: those up to sqrt(max(out, in)) eps of the largest. (Of matrices of
    lower rank with up to 1536 rows they were at most 10 eps of it.)
    """
    return spectra([matrix])[0]


def spectra(matrices: Sequence[Float[Tensor, "out in"]]) -> list[Spectrum]:
    """The `spectrum` of each matrix, as many at a time as torch has threads."""
    threads = torch.get_num_threads()
    with one_thread(), ThreadPoolExecutor(threads) as pool:
        return list(pool.map(_decomposed, matrices))


def _decomposed(matrix: Float[Tensor, "out in"]) -> Spectrum:
    left, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
    rounding = max(matrix.shape) ** 0.5 * torch.finfo(matrix.dtype).eps
    rank = int((sizes > rounding * sizes[:1]).sum())
    return Spectrum(left, sizes, right).largest(rank)


def joined(parts: Sequence[Spectrum]) -> Spectrum:
    """Spectra side by side; their vectors need not be orthogonal to each other."""
    return Spectrum(
        torch.cat([each.left for each in parts], dim=1),
        torch.cat([each.sizes for each in parts]),
        torch.cat([each.right for each in parts]),
    )


def orthogonalised(parts: Spectrum) -> Spectrum:
    """The nearest orthonormal left and right vectors (Procrustes), the same sizes.

    Where vectors depend on each other it is the nearest partial isometry, and adds no
    direction that is not theirs.
    """
    return Spectrum(polar(parts.left), parts.sizes, polar(parts.right))


def isotropic(of: Spectrum) -> Spectrum:
    """The same directions, all of their mean size."""
    return Spectrum(of.left, of.sizes.mean().expand_as(of.sizes), of.right)


def polar(matrix: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
    """U V' of a matrix U diag(s) V': its polar factor, by its singular vectors."""
    of = spectrum(matrix)
    with one_thread():
        return of.left @ of.right

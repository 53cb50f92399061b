"""Linear layers fitted to what each source's own layer gives on its own inputs."""

import torch
from jaxtyping import Float
from torch import Tensor

from mloss.one_thread import one_thread

# Of a singular regression, directions with less of the largest eigenvalue are unseen.
_UNSEEN = 1e-10


class Regression:
    r"""The layer W that minimises sum_i w_i E ||W x - W_i x||^2, x ~ inputs of task i.

    .. math:: W = \Bigl(\sum_i w_i W_i G_i'\Bigr) \Bigl(\sum_i w_i G_i'\Bigr)^{-1}

    G_i' is the mean of x x' with its off-diagonals multiplied by `off_diagonal`, which
    draws the solution towards a mean of each column on its own (Jin et al. 2023). In
    float64. What is solved for is the step from `start`, so that inputs which are
    always zero leave their column there. At `off_diagonal` 1 so do directions in which
    no input goes, where the formula has no inverse.
    """

    def __init__(
        self, start: Float[Tensor, "output input"], *, off_diagonal: float
    ) -> None:
        self._start, self._off_diagonal = start.double(), off_diagonal
        inputs = start.shape[1]
        self._gram = self._start.new_zeros(inputs, inputs)
        self._right = torch.zeros_like(self._start)

    @one_thread()
    def add(
        self,
        gram: Float[Tensor, "input input"],
        weight: Float[Tensor, "output input"],
        *,
        share: float,
    ) -> None:
        """Count a source in, with its weight w_i."""
        scaled = gram * self._off_diagonal
        scaled.diagonal().copy_(gram.diagonal())
        self._gram += share * scaled
        self._right += share * (weight.double() - self._start) @ scaled

    @one_thread()
    def solved(self) -> Float[Tensor, "output input"]:
        """The fitted weight."""
        diagonal = self._gram.diagonal()
        unit = torch.where(diagonal > 0, diagonal, 1).rsqrt()
        # Eigenvalues of the correlations are at least 1 - off_diagonal.
        correlations = self._gram * unit * unit[:, None]
        correlations.diagonal().fill_(1)
        right = (self._right * unit).T
        if self._off_diagonal < 1:
            step = torch.cholesky_solve(right, torch.linalg.cholesky(correlations))
        else:
            inverse = torch.linalg.pinv(correlations, hermitian=True, rtol=_UNSEEN)
            step = inverse @ right
        return self._start + step.T * unit


class Gram:
    """The mean of x x' over rows x that arrive in batches, in float64."""

    def __init__(self) -> None:
        self._count = 0
        self._sum: Tensor | None = None

    @one_thread()
    def add(self, rows: Float[Tensor, "row input"]) -> None:
        """Count rows in.

        Their product is rounded as float64 whatever they are: in fewer rows than
        inputs, rounding must not pass for a direction that is seen.
        """
        wide = rows.double()
        product = wide.T @ wide
        self._sum = product if self._sum is None else self._sum.add_(product)
        self._count += len(rows)

    @property
    def mean(self) -> Float[Tensor, "input input"] | None:
        """None where no row has arrived."""
        return None if self._sum is None else self._sum / self._count


def check_off_diagonal(off_diagonal: float) -> None:
    """Raise ValueError for what is no factor in [0, 1]."""
    if not 0 <= off_diagonal <= 1:
        raise ValueError(f"off_diagonal must be in [0, 1], got {off_diagonal}")


def weight_key(layer: str) -> str:
    """Key of a layer's weight; a layer that is the whole model has no name."""
    return f"{layer}.weight" if layer else "weight"


def bias_key(layer: str) -> str:
    """Key of a layer's bias."""
    return f"{layer}.bias" if layer else "bias"

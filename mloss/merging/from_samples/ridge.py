"""Ridge regression from sums over rows, with the ridge chosen on rows held out."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mloss.one_thread import one_thread

# Ridges in units of the mean square of an input.
RIDGES = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
# Well above the rounding of a sum over thousands of features, which is near 1e-12.
SMALLEST = 1e-9


@dataclass(frozen=True)
class Sums:
    """Sums over rows of x x', x y' and y'y, with the number of rows; they add up."""

    gram: Float[Tensor, "feature feature"]
    cross: Float[Tensor, "feature node"]
    square: float
    rows: int

    @classmethod
    @one_thread()
    def of(
        cls, x: Float[Tensor, "row feature"], y: Float[Tensor, "row node"]
    ) -> "Sums":
        """Sums of some rows, in float64."""
        x, y = x.double(), y.double()
        return cls(x.T @ x, x.T @ y, y.square().sum().item(), len(x))

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            self.gram + other.gram,
            self.cross + other.cross,
            self.square + other.square,
            self.rows + other.rows,
        )

    @one_thread()
    def solved(self, ridge: float, *, free: int = 0) -> Float[Tensor, "feature node"]:
        """The B that minimises mean ||y - B'x||^2 + ridge s ||B||^2.

        s is the mean square of an input; of the last `free` features, such as a
        constant, the coefficients cost nothing.
        """
        features = len(self.gram) - free
        own = self.gram.diagonal()
        cost = torch.zeros_like(own)
        cost[:features] = ridge * own[:features].mean()
        # A feature that is zero on every row gets no coefficient.
        cost = torch.where(own + cost > 0, cost, 1)
        factor = torch.linalg.cholesky(self.gram + cost.diag())
        solution: Tensor = torch.cholesky_solve(self.cross, factor)
        return solution

    @one_thread()
    def left(self, B: Float[Tensor, "feature node"]) -> float:
        """sum ||y - B'x||^2 over the rows, as a fraction of sum ||y||^2."""
        explained = 2 * (B * self.cross).sum() - (B * (self.gram @ B)).sum()
        return 1 - explained.item() / self.square if self.square > 0 else 1.0


@dataclass(frozen=True)
class Fit:
    """Coefficients from all rows, the ridge, and what it left of rows held out.

    `held_out` is the fraction of the squares that is left where the ridge was fitted
    without them. Where no ridge leaves less than all, `ridge` is None and the
    coefficients are zero.
    """

    coefficients: Float[Tensor, "feature node"]
    ridge: float | None
    held_out: float


def fitted(
    half: Sums, other: Sums, *, ridge: float | None = None, free: int = 0
) -> Fit:
    """Fit on one half for each of `RIDGES`, choose by the other, fit on both.

    With a `ridge` there is no choice.
    """
    ridges = RIDGES if ridge is None else (ridge,)
    left = {each: other.left(half.solved(each, free=free)) for each in ridges}
    best = min(ridges, key=lambda each: left[each])
    if ridge is None and left[best] >= 1:
        return Fit(torch.zeros_like(half.cross), None, 1.0)
    return Fit((half + other).solved(best, free=free), best, left[best])


def check_ridge(ridge: float) -> None:
    """Raise ValueError for a ridge that is not finite or lost in rounding."""
    if not SMALLEST <= ridge < math.inf:
        raise ValueError(f"ridge must be finite and at least {SMALLEST}, got {ridge}")

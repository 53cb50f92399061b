"""The first step of TIES: keep the largest entries of a task vector."""

import torch
from jaxtyping import Float
from torch import Tensor

from mloss.merging.keep_rates import check_rates


def trim(vector: Tensor, *, density: float) -> Tensor:
    """Keep the `density` fraction of the entries largest in size, zero the others.

    One budget for the whole tensor. Rounding and ties as in `trim_rows`. Raises
    ValueError for a density outside [0, 1].
    """
    check_rates(density)
    row = vector.reshape(1, -1)
    return trim_rows(row, row.new_tensor([density])).reshape(vector.shape)


def trim_rows(
    rows: Float[Tensor, "row entry"], rates: Float[Tensor, " row"]
) -> Float[Tensor, "row entry"]:
    """Keep the given fraction of each row's entries, the largest in size.

    Of n entries, rate * n are kept, rounded to the nearest whole number with halves
    rounded up; among entries of one size the earlier ones stay.
    """
    counts = torch.floor(rates * rows.shape[-1] + 0.5)
    by_size = rows.abs().argsort(dim=-1, descending=True, stable=True)
    position = torch.arange(rows.shape[-1], device=rows.device)
    kept = torch.zeros_like(rows, dtype=torch.bool)
    kept.scatter_(-1, by_size, position < counts.to(rows.device)[:, None])
    return rows.where(kept, 0)

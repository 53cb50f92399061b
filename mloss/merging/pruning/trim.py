"""The first step of TIES: keep the largest entries of a task vector."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mloss.merging.pruning.keep_rates import check_rates


def trim(vector: Tensor, *, density: float) -> Tensor:
    """Keep the `density` fraction of the entries largest in size, zero the others.

    One budget for the whole tensor. Rounding and ties as in `trim_rows`. Raises
    ValueError for a density outside [0, 1].
    """
    check_rates(density)
    rate = torch.tensor([density], dtype=torch.float64)
    return trim_rows(vector.reshape(1, -1), rate).reshape(vector.shape)


def kept_count(rate: float, size: int) -> int:
    """How many of `size` entries a keep rate leaves, halves rounded up."""
    return math.floor(rate * size + 0.5)


def trim_rows(
    rows: Float[Tensor, "row entry"], rates: Float[Tensor, " row"]
) -> Float[Tensor, "row entry"]:
    """Keep the given fraction of each row's entries, the largest in size.

    Of n entries, rate * n are kept, rounded to the nearest whole number with halves
    rounded up; among entries of one size the earlier ones stay. Found by selection,
    without sorting.
    """
    counts = [kept_count(rate, rows.shape[-1]) for rate in rates.tolist()]
    sizes = rows.abs()
    least = _smallest_kept(sizes, counts)[:, None]
    kept = sizes >= least
    budget = torch.tensor(counts, device=rows.device)
    for row in (kept.sum(-1) > budget).nonzero().flatten().tolist():
        kept[row] = _earliest(sizes[row], least[row], counts[row])
    return rows.where(kept, 0)


def _smallest_kept(
    sizes: Float[Tensor, "row entry"], counts: Sequence[int]
) -> Float[Tensor, " row"]:
    """The size of the last entry that each row keeps, infinity where it keeps none."""
    least = [
        np.partition(row, len(row) - count)[len(row) - count] if count else math.inf
        for row, count in zip(sizes.cpu().numpy(), counts, strict=True)
    ]
    return sizes.new_tensor(np.array(least))


def _earliest(
    sizes: Float[Tensor, " entry"], least: Float[Tensor, " 1"], count: int
) -> Bool[Tensor, " entry"]:
    """Which entries of a row are kept where more than `count` are large enough."""
    larger, equal = sizes > least, sizes == least
    return larger | (equal & (equal.cumsum(-1) <= count - larger.sum()))

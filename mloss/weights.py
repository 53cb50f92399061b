"""The merging weights alpha of the source models."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Weights = Sequence[float] | Tensor | None

_SUM_WITHIN = 1e-6


def merging_weights(weights: Weights, *, q: int) -> Float[Tensor, " q"]:
    """Weights of q source models in float64 on the CPU; None is 1/q (Remark 1).

    They are divided by their sum, which must be 1 to 1e-6 (rounding of float32), or to
    the rounding of q additions in their own precision where that is coarser. Raises
    ValueError for another sum and unless there are q weights, all finite and
    non-negative, and TypeError for what is not real numbers.
    """
    if q < 1:
        raise ValueError(f"q counts the source models and must be >= 1, got {q}")
    if weights is None:
        return torch.full((q,), 1 / q, dtype=torch.float64)
    given = _as_tensor(weights)
    if given.shape != (q,):
        raise ValueError(
            f"weights must hold one number for each of the {q} source models, "
            f"got shape {tuple(given.shape)}"
        )
    if not torch.isfinite(given).all() or (given < 0).any():
        raise ValueError(
            f"weights must be finite and non-negative, got {given.tolist()}"
        )
    precision = given.dtype if given.is_floating_point() else torch.float64
    total = given.double().sum().item()
    if abs(total - 1) > max(_SUM_WITHIN, q * torch.finfo(precision).eps):
        raise ValueError(f"weights must sum to 1, got a sum of {total}")
    return given.double() / total


def _as_tensor(weights: Sequence[float] | Tensor) -> Tensor:
    try:
        given = (
            weights.detach().cpu()
            if isinstance(weights, Tensor)
            else torch.tensor(weights, dtype=torch.float64)
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"weights must be real numbers, got {weights!r}") from error
    if given.is_complex():
        raise TypeError(f"weights must be real numbers, got {given.dtype}")
    return given


def weighted_sum(weights: Float[Tensor, " q"], terms: Iterable[Tensor]) -> Tensor:
    """sum_i w_i t_i over q tensors of one shape, taken one at a time."""
    first, *others = weights.tolist()
    each = iter(terms)
    total: Tensor = first * next(each)
    for weight, term in zip(others, each, strict=True):
        total.add_(term, alpha=weight)
    return total

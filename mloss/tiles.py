"""Large tensors computed in pieces that fit in a cache, with little memory."""

from collections.abc import Callable

import torch
from torch import Tensor

# Values of a piece: float64 of them for a few tensors fit in a core's cache, which
# counts for more than a second core does; torch keeps to one thread for so few.
_AT_ONCE = 2**15


def by_tiles(
    like: Tensor, piece: Callable[[slice], Tensor], *, dtype: torch.dtype | None = None
) -> Tensor:
    """A new tensor like another, its values in flat order computed piece by piece.

    `piece` gives those of a slice. It is asked for one slice after the other, in flat
    order, so that it may draw random numbers as it goes. On an accelerator one slice
    is everything.
    """
    made = torch.empty_like(like, dtype=dtype, memory_format=torch.contiguous_format)
    flat = made.view(-1)
    step = _AT_ONCE if made.device.type == "cpu" else max(1, flat.numel())
    for start in range(0, flat.numel(), step):
        part = slice(start, start + step)
        flat[part] = piece(part)
    return made

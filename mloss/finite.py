"""Whether all numbers of a tensor are finite, in one pass at the speed of memory."""

import torch
from torch import Tensor


def all_finite(value: Tensor) -> bool:
    """Whether a tensor holds no NaN and no infinity.

    The least and the greatest are finite only if all are, NaN being both; this is
    many times faster than asking every element.
    """
    if value.numel() == 0:
        return True
    return bool(torch.stack(torch.aminmax(value)).isfinite().all())


def check_finite(value: Tensor, *, name: str, owner: str) -> None:
    """Raise ValueError with the first place where a tensor of a model is not finite.

    Integers are all finite.
    """
    if not value.is_floating_point() or all_finite(value):
        return
    wrong = ~value.isfinite()
    first = tuple(wrong.nonzero()[0].tolist())
    raise ValueError(
        f"{name!r} of {owner} holds {int(wrong.sum())} values that are not finite, the "
        f"first at {list(first)} ({value[first].item()}): the model is damaged or its "
        "training diverged"
    )

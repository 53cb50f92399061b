"""Float32 that is float32: TF32 in convolutions only where products have it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.backends import cudnn


@contextmanager
def convolutions_as_products() -> Iterator[None]:
    """Let cuDNN's convolutions take TF32 only where matrix products may.

    Torch gives convolutions TF32, with its 10 bits, unless told otherwise, and products
    only where asked (`torch.set_float32_matmul_precision`). Where torch's newer
    settings have been used, they say what is meant for both, and stay.
    """
    try:
        before = cudnn.allow_tf32
        asked = torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # the older settings cannot say what the newer ones do
        yield
        return
    cudnn.allow_tf32 = asked
    try:
        yield
    finally:
        cudnn.allow_tf32 = before

"""A digest of tensors: their names, dtypes, shapes and every bit of them."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over all of them in the order of their names, whatever their dtypes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].detach().contiguous()
        dtype = str(values.dtype).removeprefix("torch.")
        digest.update(f"{name} {dtype} {tuple(values.shape)} ".encode())
        # Bytes, since numpy has no bfloat16.
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

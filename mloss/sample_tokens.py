"""The samples of a batch and their tokens: cut into tiles, and averaged."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor


def tiles(samples: int, tokens: int, *, most: int) -> Iterator[tuple[slice, slice]]:
    """Cut the plane of samples and tokens into pieces of at most so many, or one."""
    for rows in _even(samples, most=most // tokens):
        for columns in _even(tokens, most=most):
            yield rows, columns


def _even(length: int, *, most: int) -> Iterator[slice]:
    """Cut a length into equal pieces, as far as it goes."""
    pieces = math.ceil(length / max(1, most))
    for piece in range(pieces):
        yield slice(piece * length // pieces, (piece + 1) * length // pieces)


def summed(
    values: Float[Tensor, "sample token entry"], shares: Float[Tensor, "sample token"]
) -> Float[Tensor, "sample entry"]:
    """Sums over the tokens of each sample, weighted by their shares."""
    return (shares[:, None] @ values).squeeze(1)


def token_shares(
    inputs: Float[Tensor, "sample part ..."], tokens: Tensor | None, *, positions: int
) -> Float[Tensor, "sample token"]:
    """Weight of each token in its sample's mean; padding has none.

    Inputs without the padded axis, of a layer that sees a sample as a whole, have no
    padding in them.
    """
    if tokens is None or inputs.shape[:2] != tokens.shape:
        like = inputs.new_ones((), dtype=torch.float64)
        return like.expand(len(inputs), positions) / positions
    real = tokens.to(device=inputs.device, dtype=torch.float64)
    return real / real.sum(dim=1, keepdim=True)

"""A network's output as one row of numbers for each sample."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.batches import Batch, real_tokens, size
from mloss.inference import forward
from mloss.states import State


def flat_output(
    model: nn.Module, state: State, batch: Batch
) -> Float[Tensor, "sample entry"]:
    """Output with the parameters of a state, flattened; zero where tokens are padding.

    Raises ValueError where the output has not one row a sample.
    """
    output = forward(model, state, batch)
    if output.ndim == 0 or len(output) != size(batch):
        raise ValueError(
            f"the output must have one row for each of the {size(batch)} samples, "
            f"got shape {tuple(output.shape)}"
        )
    tokens = real_tokens(batch)
    if tokens is not None and output.shape[1:2] == tokens.shape[1:]:
        # Padding has an output of its own, which nobody uses.
        output = output * tokens.to(output.device)[(...,) + (None,) * (output.ndim - 2)]
    return output.reshape(len(output), -1)


def check_finite(output: Tensor) -> None:
    """Raise ValueError for an output with an infinity or a NaN."""
    if not torch.isfinite(output).all():
        raise ValueError("the output has an infinity or a NaN")

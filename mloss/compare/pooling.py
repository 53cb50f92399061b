"""One row of numbers for each sample, from whatever a model of transformers gives."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.inference import first_tensor

Pooling = Literal["mean", "first"]

# How transformers calls causal language models.
_CAUSAL = ("ForCausalLM", "LMHeadModel")


@dataclass
class Output:
    """What is known of a model's output once it has run.

    `logits`: the model itself calls it so, and its entries are scores of classes.
    """

    logits: bool = False


@contextmanager
def pooled(model: nn.Module, *, pooling: Pooling = "mean") -> Iterator[Output]:
    """Let a model return one row a sample for as long as the block runs.

    Of hidden states [sample, token, feature] that is the mean over the real tokens, or
    the first token. Of logits [sample, token, class] of a causal language model it is
    the last real token's: what comes after the sample. Any other output is as it was.
    Raises ValueError for another `pooling`, and in the block for logits that are not
    one row a sample and of no causal language model.
    """
    if pooling not in ("mean", "first"):
        raise ValueError(f"pooling must be 'mean' or 'first', got {pooling!r}")
    seen = Output()
    own = vars(model).get("forward")
    model.forward = partial(_one_row, model, model.forward, pooling, seen)
    try:
        yield seen
    finally:
        del model.forward
        if own is not None:
            model.forward = own


def _one_row(
    model: nn.Module,
    forward: Callable[..., object],
    pooling: Pooling,
    seen: Output,
    *args: Tensor,
    **inputs: Any,
) -> Tensor:
    output = forward(*args, **inputs)
    seen.logits = isinstance(output, Mapping) and "logits" in output
    value = (
        output["logits"]
        if isinstance(output, Mapping) and seen.logits
        else first_tensor(output, owner="the model")
    )
    if seen.logits and value.ndim > 2:
        _check_predicts_next(model, value)
    if value.ndim != 3:
        return value
    real = _real(value, inputs.get("attention_mask"))
    if seen.logits:
        return value[torch.arange(len(value)), _last(real)]
    if pooling == "first":
        return value[:, 0]
    return (value * real[..., None]).sum(dim=1) / real.sum(dim=1, keepdim=True)


def _check_predicts_next(model: nn.Module, logits: Tensor) -> None:
    """Raise ValueError but for a token's logits of the token after it."""
    names = [kind.__name__ for kind in type(model).__mro__]
    causal = any(name.endswith(_CAUSAL) for name in names)
    if not (causal and logits.ndim == 3):
        raise ValueError(
            f"{names[0]} gives logits of shape {list(logits.shape)}, several rows a "
            "sample: give an encoder, a classifier or a causal language model"
        )


def _real(
    value: Float[Tensor, "sample token entry"], mask: Tensor | None
) -> Float[Tensor, "sample token"]:
    """1 where there is a token, 0 where a sample is padded."""
    if mask is None or mask.shape != value.shape[:2]:
        return torch.ones_like(value[..., 0])
    return mask.to(value)


def _last(real: Float[Tensor, "sample token"]) -> Tensor:
    """Place of each sample's last real token, whichever side is padded."""
    places = torch.arange(1, real.shape[1] + 1, device=real.device)
    return (real * places).argmax(dim=1)

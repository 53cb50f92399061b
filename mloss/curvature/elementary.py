"""Fused operations of torch written out, so that they can be differentiated twice.

Nested forward-mode derivatives in torch 2.13 are wrong through layer and instance
normalisation (by tens of per cent, pytorch issue 196700) and missing for fused
attention, SiLU, Mish, GLU and the running statistics of batch normalisation.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class WrittenOut(TorchFunctionMode):
    """Inside the block, the operations above run as compositions of simple ones.

    The results are the same but for rounding. Attention without a fused kernel holds
    its [query, key] weights in memory. Modules take their unfused paths as well.
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,  # torch's protocol
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        return _WRITTEN_OUT.get(func, func)(*args, **(kwargs or {}))


def _standardised(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    centred: Tensor = x - x.mean(dim=dims, keepdim=True)
    return centred * (centred.square().mean(dim=dims, keepdim=True) + eps).rsqrt()


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    scaled = x if weight is None else x * weight
    return scaled if bias is None else scaled + bias


def _layer_norm(
    input: Tensor,  # noqa: A002  # torch's name
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,  # noqa: ARG001, FBT001, FBT002  # torch's signature
) -> Tensor:
    dims = range(-len(normalized_shape), 0)
    return _affine(_standardised(input, tuple(dims), eps), weight, bias)


def _rms_norm(
    input: Tensor,  # noqa: A002  # torch's name
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    floor = torch.finfo(input.dtype).eps if eps is None else eps
    scale = (input.square().mean(dim=dims, keepdim=True) + floor).rsqrt()
    return _affine(input * scale, weight, None)


def _on_channels(values: Tensor | None, x: Tensor) -> Tensor | None:
    return None if values is None else values.reshape(-1, *[1] * (x.ndim - 2))


def _batch_norm(
    input: Tensor,  # noqa: A002  # torch's name
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,  # noqa: FBT001, FBT002  # torch's signature
    momentum: float = 0.1,  # noqa: ARG001  # torch's signature
    eps: float = 1e-5,
) -> Tensor:
    """Batch normalisation, whose running statistics are parameters of a merge too."""
    mean, var = _on_channels(running_mean, input), _on_channels(running_var, input)
    if training or mean is None or var is None:
        normed = _standardised(input, (0, *range(2, input.ndim)), eps)
    else:
        normed = (input - mean) * (var + eps).rsqrt()
    return _affine(normed, _on_channels(weight, input), _on_channels(bias, input))


def _instance_norm(
    input: Tensor,  # noqa: A002  # torch's name
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,  # noqa: FBT001, FBT002  # torch's signature
    momentum: float = 0.1,  # noqa: ARG001  # torch's signature
    eps: float = 1e-5,
) -> Tensor:
    if not use_input_stats:
        return _batch_norm(input, running_mean, running_var, weight, bias, eps=eps)
    normed = _standardised(input, tuple(range(2, input.ndim)), eps)
    return _affine(normed, _on_channels(weight, input), _on_channels(bias, input))


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,  # noqa: ARG001  # none in evaluation mode
    is_causal: bool = False,  # noqa: FBT001, FBT002  # torch's signature
    scale: float | None = None,
    enable_gqa: bool = False,  # noqa: FBT001, FBT002  # torch's signature
) -> Tensor:
    """softmax(q k' / sqrt(width) + mask) v; zero for a query that sees nothing."""
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = (t.repeat_interleave(groups, dim=-3) for t in (key, value))
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
        attn_mask = seen.tril()
    if attn_mask is not None:
        scores = (
            scores.masked_fill(~attn_mask, -torch.inf)
            if attn_mask.dtype == torch.bool
            else scores + attn_mask
        )
    blind = (scores == -torch.inf).all(dim=-1, keepdim=True)
    return scores.softmax(dim=-1).masked_fill(blind, 0) @ value


def _multi_head(*args: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
    """The path that returns the attention weights, as it uses no fused kernel."""
    wanted = options.get("need_weights", True)
    options["need_weights"] = True
    output, weights = functional.multi_head_attention_forward(*args, **options)
    return output, weights if wanted else None


def _silu(input: Tensor, inplace: bool = False) -> Tensor:  # noqa: A002, ARG001, FBT001, FBT002  # torch's signature
    return input * input.sigmoid()


def _mish(input: Tensor, inplace: bool = False) -> Tensor:  # noqa: A002, ARG001, FBT001, FBT002  # torch's signature
    return input * functional.softplus(input).tanh()


def _glu(input: Tensor, dim: int = -1) -> Tensor:  # noqa: A002  # torch's signature
    value, gate = input.chunk(2, dim=dim)
    return value * gate.sigmoid()


_WRITTEN_OUT: Mapping[Callable[..., object], Callable[..., object]] = {
    functional.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    functional.rms_norm: _rms_norm,
    torch.rms_norm: _rms_norm,
    functional.batch_norm: _batch_norm,
    functional.instance_norm: _instance_norm,
    functional.scaled_dot_product_attention: _attention,
    functional.silu: _silu,
    functional.mish: _mish,
    functional.glu: _glu,
    functional.multi_head_attention_forward: _multi_head,
}

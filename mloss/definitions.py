"""M-Loss of one set of pre-activations (paper Definitions 3.3 to 3.6)."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.linalg import vector_norm

from mloss.activations import Activation, resolve
from mloss.finite import all_finite
from mloss.weights import Weights, merging_weights, weighted_sum


def node_mloss(
    h: Float[Tensor, "q *batch node"],
    activation: str | Activation,
    *,
    weights: Weights = None,
    up: Float[Tensor, "q *batch node"] | None = None,
    normalized: bool = False,
    eps: float = 1e-4,
) -> Float[Tensor, "*batch node"]:
    """|f(sum_i w_i h_i) - sum_i w_i f(h_i)| for every sample and node (Eq. 4).

    h holds the pre-activations of the q source models on one shared input;
    `weights` are the q merging weights, 1/q each by default. With `normalized` the
    loss is divided by |f(sum_i w_i h_i)| + eps (Eq. 7). In the units of f. For a
    gated pair, `up` holds what the activation is multiplied by: the node's output is
    f(h) up, in the merge f(sum_i w_i h_i) sum_i w_i up_i.

    The two terms cancel when the models are close: what is left is uncertain by
    about the rounding of f(h), so pass float64 where that matters. Half precision is
    computed and returned in float32.

    Raises TypeError for h that is no floating-point tensor. Raises ValueError for h
    that is not finite or lacks an axis, for weights that do not fit, for an unknown
    activation or one whose values are not finite or not of the shape of its input,
    and for eps that is not positive in the precision of the result.
    """
    merged, ensembled = _sides(h, activation, weights=weights, up=up)
    loss = (merged - ensembled).abs()
    return relative(loss, merged.abs(), eps=eps) if normalized else loss


def layer_mloss(
    h: Float[Tensor, "q *batch node"],
    activation: str | Activation,
    *,
    weights: Weights = None,
    up: Float[Tensor, "q *batch node"] | None = None,
    normalized: bool = False,
    eps: float = 1e-4,
) -> Float[Tensor, "*batch"]:
    """L2 norm over the nodes of a layer's discrepancy, for every sample (Eq. 3).

    With `normalized` it is divided by ||f(sum_i w_i h_i)|| + eps (Eq. 6). Arguments,
    cancellation and errors are those of `node_mloss`; a norm that overflows is a
    ValueError too.
    """
    merged, ensembled = _sides(h, activation, weights=weights, up=up)
    loss = _norm(merged - ensembled)
    if not normalized:
        return loss
    return relative(loss, _norm(merged), eps=eps)


def both_sides(
    h: Iterable[Float[Tensor, "*batch node"]],
    activation: Activation,
    *,
    mean: Float[Tensor, "*batch node"],
    weights: Float[Tensor, " q"],
    up: Float[Tensor, "q *batch node"] | None = None,
) -> tuple[Float[Tensor, "*batch node"], Float[Tensor, "*batch node"]]:
    """f(mean) and sum_i w_i f(h_i): what the merge and the ensemble make of a layer.

    `mean` is sum_i w_i h_i, or the merge's own pre-activation where that is another:
    where a normalisation's parameters are averaged with the layer's. Raises
    ValueError where a side is not finite.
    """
    merged = _apply(activation, mean)
    # One model at a time, so that no temporary grows with q.
    each = (_apply(activation, own) for own in h)
    if up is not None:
        merged = merged * weighted_sum(weights, up)
        each = (value * factor for value, factor in zip(each, up, strict=True))
    ensembled = weighted_sum(weights, each)
    # What is not finite in one term is not finite in the sum.
    if not (all_finite(merged) and all_finite(ensembled)):
        raise ValueError("activation must be finite on h, got an infinity or a NaN")
    return merged, ensembled


def _sides(
    h: Tensor, activation: str | Activation, *, weights: Weights, up: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Both sides for what a caller gives."""
    h, f = _checked("h", h), resolve(activation)
    w = merging_weights(weights, q=len(h))
    if up is not None:
        up = _checked("up", up)
        if up.shape != h.shape:
            raise ValueError(
                f"up must have the shape of h, {tuple(h.shape)}, got {tuple(up.shape)}"
            )
    return both_sides(h, f, mean=weighted_sum(w, h), weights=w, up=up)


def _checked(name: str, h: Tensor) -> Tensor:
    """Pre-activations that are finite and no narrower than float32."""
    if not isinstance(h, Tensor) or not h.is_floating_point():
        got = h.dtype if isinstance(h, Tensor) else type(h).__name__
        raise TypeError(f"{name} must be a floating-point tensor, got {got}")
    if h.ndim < 2:
        raise ValueError(f"{name} must have shape [q, ..., node], got {tuple(h.shape)}")
    if not all_finite(h):
        raise ValueError(f"{name} must be finite, got an infinity or a NaN")
    return h.float() if h.dtype in (torch.float16, torch.bfloat16) else h


def _apply(activation: Activation, h: Float[Tensor, "*shape"]) -> Tensor:
    """Values of an activation, once there is known to be one for each h."""
    values = activation(h)
    if not isinstance(values, Tensor) or values.shape != h.shape:
        got = getattr(values, "shape", type(values).__name__)
        raise ValueError(
            f"activation must map a tensor of shape {tuple(h.shape)} to one like it, "
            f"got {got}"
        )
    return values


def _norm(values: Float[Tensor, "*batch node"]) -> Float[Tensor, "*batch"]:
    norm: Tensor = vector_norm(values, dim=-1)
    if not torch.isfinite(norm).all():
        raise ValueError(f"h is too large: the norm overflows {norm.dtype}")
    return norm


def relative(
    loss: Float[Tensor, "*shape"], size: Float[Tensor, "*shape"], *, eps: float
) -> Float[Tensor, "*shape"]:
    """Loss over size + eps: the normalised forms of Eqs. 6 and 7."""
    if not torch.tensor(eps, dtype=loss.dtype) > 0:
        raise ValueError(f"eps must be positive in {loss.dtype}, got {eps}")
    return loss / (size + eps)

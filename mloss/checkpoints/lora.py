"""LoRA adapters of `peft`, added to the weights of the base they were trained on.

A layer's weight becomes W + s B A with A [r, in], B [out, r] and the scale
s = alpha / r, or alpha / sqrt(r) for rank-stabilised adapters (`use_rslora`).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor

from mloss.checkpoints.checkpoint import Checkpoint, Entry
from mloss.checkpoints.listing import listing
from mloss.checkpoints.places import place_in

_PREFIX = "base_model.model."
_HALVES = {
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_embedding_A": "A",
    ".lora_embedding_B": "B",
}
# Options under which the merged weight is not W + s B A on the base's own weights.
_OTHER_METHODS = (
    "alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication",
    "lora_bias", "megatron_config", "monteclora_config", "target_parameters",
    "trainable_token_indices", "use_bdlora", "use_dora", "use_qalora", "velora_config",
)  # fmt: skip
_STARTS_AT_BASE = (None, True, False, "gaussian", "eva", "orthogonal")


def with_adapter(base: Checkpoint, adapter: Checkpoint) -> Checkpoint:
    """The base with a LoRA adapter merged in, computed as each tensor is read.

    Adapted weights are float32, or float64 where a part of them is: a base in half
    precision would round small updates away. What the adapter saves whole
    (`modules_to_save`, trained biases) replaces the base's. Raises ValueError for
    variants that are not W + s B A (DoRA and others), and for weights that the base
    has not, or has in another shape.
    """
    config = dict(adapter.config or {})
    _check_supported(adapter.source, config)
    whole, low_rank = _sorted_out(adapter)
    place = place_in(base)
    changed = [*whole, *(f"{layer}.weight" for layer in low_rank)]
    places = {name: found for name in changed if (found := place(name)) is not None}
    if lost := set(changed) - set(places):
        raise ValueError(
            f"{adapter.source} changes {listing(lost)}, which {base.source} has not"
        )
    entries = dict(base.entries)
    for name, entry in whole.items():
        entries[places[name]] = entry
    for layer, halves in low_rank.items():
        name = places[f"{layer}.weight"]
        try:
            entries[name] = _adapted(entries[name], halves, config, layer)
        except (ValueError, re.error) as error:
            raise ValueError(f"{adapter.source}: {layer!r} {error}") from error
    return replace(base, source=adapter.source, entries=entries)


def _check_supported(source: str, config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise ValueError(
            f"{source} is an adapter of type {config.get('peft_type')!r}, and only "
            "LORA ones can be merged into their base"
        )
    if used := [name for name in _OTHER_METHODS if config.get(name)]:
        raise ValueError(
            f"{source} uses {used[0]}, which is not W + s B A: merge it into its base "
            "with peft's merge_and_unload and give the result"
        )
    if (start := config.get("init_lora_weights")) not in _STARTS_AT_BASE:
        raise ValueError(
            f"{source} was started by {start!r}, which changes the base's weights: "
            "merge it into its base with peft's merge_and_unload and give the result"
        )


def _sorted_out(
    adapter: Checkpoint,
) -> tuple[dict[str, Entry], dict[str, dict[str, Entry]]]:
    """Weights saved whole by their names, and the halves A and B by their layers."""
    whole: dict[str, Entry] = {}
    low_rank: dict[str, dict[str, Entry]] = {}
    for stored, entry in adapter.entries.items():
        name = stored.removeprefix(_PREFIX).replace(".base_layer.", ".")
        for ending, half in _HALVES.items():
            if name.endswith(ending):
                low_rank.setdefault(name.removesuffix(ending), {})[half] = entry
                break
        else:
            if "lora_" in name:
                raise ValueError(f"{adapter.source} has {stored!r}: not W + s B A")
            whole[name] = entry
    for layer, halves in low_rank.items():
        if len(halves) < 2:
            raise ValueError(f"{adapter.source} has one half only for {layer!r}")
    return whole, low_rank


def _adapted(
    base: Entry, halves: Mapping[str, Entry], config: Mapping[str, Any], layer: str
) -> Entry:
    a, b = halves["A"], halves["B"]
    rank = a.shape[0]
    if math.prod(b.shape[1:]) != rank:
        raise ValueError(f"has halves of shapes {a.shape} and {b.shape}")
    update = (b.shape[0], *a.shape[1:])
    swapped = update[::-1]
    if base.shape not in (update, swapped):
        raise ValueError(f"has shape {base.shape} in the base, {update} in the adapter")
    # Embeddings and GPT-2's layers keep [in, out]; where both fit, the flag decides.
    transposed = base.shape != update or (
        update == swapped and len(update) == 2 and bool(config.get("fan_in_fan_out"))
    )
    dtypes = (base.dtype, a.dtype, b.dtype, torch.float32)
    dtype = reduce(torch.promote_types, dtypes)
    scale = _scale(config, layer, rank=rank)
    read = partial(_merged, base, a, b, scale, transposed=transposed, dtype=dtype)
    return Entry(base.shape, dtype, read)


def _scale(config: Mapping[str, Any], layer: str, *, rank: int) -> float:
    alpha = float(config.get("lora_alpha", 8))
    for pattern, stated in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", layer):
            alpha = float(stated)
            break
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _merged(
    base: Entry,
    a: Entry,
    b: Entry,
    scale: float,
    *,
    transposed: bool,
    dtype: torch.dtype,
) -> Tensor:
    weight = base.read().to(dtype)
    update = b.read().to(dtype).flatten(1) @ a.read().to(dtype).flatten(1)
    ordered = update.T if transposed else update
    return weight + ordered.reshape(weight.shape) * scale

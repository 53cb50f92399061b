"""The names of CLIP's weights in open_clip and in transformers, converted both ways.

open_clip keeps queries, keys and values in one matrix, and the two projections into the
common space as [width, embedding]; transformers keeps three matrices, and transposes.
Everything else only has another name.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mloss.checkpoints.checkpoint import Entry

_VISION = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.proj": "visual_projection.weight",
}
_TEXT = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
}
_BLOCK = {
    "ln_1": "layer_norm1",
    "attn.out_proj": "self_attn.out_proj",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_BLOCKS = {
    "visual.transformer.resblocks": "vision_model.encoder.layers",
    "transformer.resblocks": "text_model.encoder.layers",
}
_TRANSPOSED = {"visual.proj", "text_projection"}
# Buffers that a model makes for itself, and sizes that OpenAI's files state.
_MADE = {
    "attn_mask",
    "context_length",
    "input_resolution",
    "text_model.embeddings.position_ids",
    "vision_model.embeddings.position_ids",
    "vocab_size",
}


@dataclass(frozen=True)
class _Pair:
    """One weight of open_clip and what holds it in transformers."""

    open_clip: str
    transformers: tuple[str, ...]


def is_open_clip(entries: Mapping[str, Entry]) -> bool:
    """Whether the names are those of open_clip's CLIP with a vision transformer."""
    return "visual.class_embedding" in entries and "visual.conv1.weight" in entries


def has_text_tower(entries: Mapping[str, Entry]) -> bool:
    """Whether there is a text transformer, which image encoders leave out."""
    return depth(entries, "transformer.resblocks") > 0


def depth(entries: Mapping[str, Entry], blocks: str) -> int:
    """The number of blocks of a tower, whose list has this name in open_clip."""
    count = 0
    while f"{blocks}.{count}.ln_1.weight" in entries:
        count += 1
    return count


def transformers_entries(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Weights of open_clip's CLIP under the names of transformers' CLIPModel.

    Without a text transformer only the vision tower is given. Raises ValueError
    naming weights that CLIPModel has no place for.
    """
    if not has_text_tower(entries):
        entries = {k: v for k, v in entries.items() if k.startswith("visual.")}
    layers = {blocks: depth(entries, blocks) for blocks in _BLOCKS}
    converted: dict[str, Entry] = {}
    left = set(entries) - _MADE
    for pair in _pairs(layers):
        if pair.open_clip in left:
            left.remove(pair.open_clip)
            parts = _split(entries[pair.open_clip], pair)
            converted |= zip(pair.transformers, parts, strict=True)
    _check_none_left(left, "transformers' CLIPModel")
    return converted


def open_clip_entries(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Weights of transformers' CLIP under the names of open_clip's, the inverse.

    Raises ValueError naming weights that open_clip's model has no place for, as it
    has not for some queries, keys and values without the others.
    """
    layers = {}
    for theirs, ours in _BLOCKS.items():
        found = {k.removeprefix(f"{ours}.").partition(".")[0] for k in entries}
        layers[theirs] = sum(index.isdigit() for index in found)
    converted = {}
    left = set(entries) - _MADE
    for pair in _pairs(layers):
        if left.issuperset(pair.transformers):
            left.difference_update(pair.transformers)
            parts = [entries[name] for name in pair.transformers]
            converted[pair.open_clip] = _joined(parts, pair)
    _check_none_left(left, "open_clip's CLIP")
    return converted


def _pairs(layers: Mapping[str, int]) -> Iterator[_Pair]:
    for theirs, ours in (_VISION | _TEXT).items():
        yield _Pair(theirs, (ours,))
    for blocks, count in layers.items():
        for index in range(count):
            yield from _block(f"{blocks}.{index}.", f"{_BLOCKS[blocks]}.{index}.")


def _block(theirs: str, ours: str) -> Iterator[_Pair]:
    for kind in ("weight", "bias"):
        for name, renamed in _BLOCK.items():
            yield _Pair(f"{theirs}{name}.{kind}", (f"{ours}{renamed}.{kind}",))
        split = tuple(f"{ours}self_attn.{part}_proj.{kind}" for part in "qkv")
        yield _Pair(f"{theirs}attn.in_proj_{kind}", split)


def _split(entry: Entry, pair: _Pair) -> list[Entry]:
    if pair.open_clip in _TRANSPOSED:
        return [_transposed(entry)]
    if pair.open_clip == "logit_scale":  # of shape [1] in some versions of open_clip
        return [Entry((), entry.dtype, lambda: entry.read().reshape(()))]
    count = len(pair.transformers)
    if count == 1:
        return [entry]
    if entry.shape[0] % count:
        raise ValueError(f"{pair.open_clip!r} has {entry.shape[0]} rows, not 3 times n")
    shape = (entry.shape[0] // count, *entry.shape[1:])
    return [
        Entry(shape, entry.dtype, partial(_rows, entry, shape[0], part))
        for part in range(count)
    ]


def _joined(parts: list[Entry], pair: _Pair) -> Entry:
    first = parts[0]
    if pair.open_clip in _TRANSPOSED:
        return _transposed(first)
    if len(parts) == 1:
        return first
    if any(part.shape != first.shape for part in parts):
        raise ValueError(f"{pair.transformers} must have the same shape")
    shape = (len(parts) * first.shape[0], *first.shape[1:])
    return Entry(shape, first.dtype, lambda: torch.cat([part.read() for part in parts]))


def _transposed(entry: Entry) -> Entry:
    return Entry(entry.shape[::-1], entry.dtype, lambda: entry.read().T)


def _rows(entry: Entry, height: int, part: int) -> Tensor:
    return entry.read()[part * height : (part + 1) * height]


def _check_none_left(left: set[str], owner: str) -> None:
    if left:
        raise ValueError(
            f"{owner} has no place for {min(left)!r}"
            + (f" and {len(left) - 1} others" if len(left) > 1 else "")
        )

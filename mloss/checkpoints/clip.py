"""CLIP checkpoints: from open_clip's layout to transformers' and back."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mloss.checkpoints.checkpoint import Checkpoint, Entry, Layout
from mloss.checkpoints.clip_names import (
    depth,
    has_text_tower,
    open_clip_entries,
    transformers_entries,
)
from mloss.checkpoints.inert_pickle import Inert
from mloss.checkpoints.torch_file import modules

# Width of a vision head where it is not 64: ViT-H, ViT-g and ViT-bigG.
_HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104}


def to_transformers(
    checkpoint: Checkpoint, *, quick_gelu: bool | None = None
) -> Checkpoint:
    """An open_clip checkpoint as transformers' CLIPModel, with the config for it.

    Without a text transformer it becomes a CLIPVisionModelWithProjection. Sizes come
    from the shapes. The activation does not show in a state dict: `quick_gelu` states
    it where neither open_clip_config.json beside the file nor a module saved whole
    does. So do the heads: where unknown their width is that of open_clip's published
    models. Raises ValueError where the activation is unknown or a weight has no place.
    """
    entries = entries_in_layout(checkpoint, "transformers")
    model = dict((checkpoint.config or {}).get("model_cfg", {}))
    if quick_gelu is None:
        quick_gelu = model.get("quick_gelu", False if model else None)
    if quick_gelu is None:
        raise ValueError(
            f"{checkpoint.source} does not say its activation: put its "
            "open_clip_config.json beside it, or state quick_gelu (true for weights "
            "of OpenAI and those named -quickgelu)"
        )
    config = _config(checkpoint.entries, model, "quick_gelu" if quick_gelu else "gelu")
    return replace(checkpoint, entries=entries, layout="transformers", config=config)


def to_open_clip(checkpoint: Checkpoint) -> Checkpoint:
    """A CLIP of transformers under open_clip's names, read lazily.

    Raises ValueError where a weight has no place there.
    """
    entries = entries_in_layout(checkpoint, "open_clip")
    return replace(checkpoint, entries=entries, layout="open_clip", config=None)


def entries_in_layout(checkpoint: Checkpoint, layout: Layout) -> dict[str, Entry]:
    """The weights of a CLIP under the other layout's names.

    Raises ValueError for a model that is in no layout of CLIP or in this one already.
    """
    try:
        if checkpoint.layout == "open_clip" and layout == "transformers":
            return transformers_entries(checkpoint.entries)
        if checkpoint.layout == "transformers" and layout == "open_clip":
            return open_clip_entries(_prefixed(checkpoint.entries))
    except ValueError as error:
        raise ValueError(f"{checkpoint.source}: {error}") from error
    raise ValueError(
        f"{checkpoint.source} is in the layout {checkpoint.layout!r}, "
        f"which is not converted to {layout!r}"
    )


def image_tower(checkpoint: Checkpoint) -> Checkpoint:
    """The image side of a CLIPModel, as a CLIPVisionModelWithProjection.

    It takes images alone, which is what there is to score with. Raises ValueError
    for another model.
    """
    config = checkpoint.config or {}
    if config.get("model_type") != "clip":
        raise ValueError(
            f"{checkpoint.source} must be a CLIPModel, "
            f"got model_type {config.get('model_type')!r}"
        )
    vision = dict(config["vision_config"]) | {
        "model_type": "clip_vision_model",
        "projection_dim": config.get("projection_dim", 512),
        "architectures": ["CLIPVisionModelWithProjection"],
    }
    entries = {
        name: entry
        for name, entry in checkpoint.entries.items()
        if name.startswith(("vision_model.", "visual_projection."))
    }
    return replace(checkpoint, entries=entries, config=vision)


def config_of_module(root: Inert) -> dict[str, Any] | None:
    """What a CLIP of open_clip that was saved whole shows of its configuration.

    In the form of open_clip_config.json; None where no block is found.
    """
    model: dict[str, Any] = {}
    for name, module in modules(root):
        tower = "vision_cfg" if "visual." in name else "text_cfg"
        if name.endswith("resblocks.0.attn") and isinstance(module.state, dict):
            width, heads = (module.state.get(k) for k in ("embed_dim", "num_heads"))
            if isinstance(width, int) and isinstance(heads, int) and heads > 0:
                model[tower] = {"head_width": width // heads, "heads": heads}
        if name.endswith("resblocks.0.mlp.gelu"):
            model["quick_gelu"] = module.origin.endswith(".QuickGELU")
    return {"model_cfg": model} if "quick_gelu" in model else None


def _config(
    entries: Mapping[str, Entry], model: Mapping[str, Any], activation: str
) -> dict[str, Any]:
    vision = _vision_config(entries, model.get("vision_cfg", {})) | {
        "hidden_act": activation
    }
    if not has_text_tower(entries):
        projected = "visual.proj" in entries
        name = "CLIPVisionModelWithProjection" if projected else "CLIPVisionModel"
        return vision | {"architectures": [name], "model_type": "clip_vision_model"}
    text = _text_config(entries, model.get("text_cfg", {})) | {"hidden_act": activation}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": vision["projection_dim"],
        "vision_config": vision,
        "text_config": text,
    }


def _vision_config(
    entries: Mapping[str, Entry], stated: Mapping[str, Any]
) -> dict[str, Any]:
    (width,) = entries["visual.class_embedding"].shape
    patch = entries["visual.conv1.weight"].shape[-1]
    positions = entries["visual.positional_embedding"].shape[0] - 1
    side = math.isqrt(positions)
    if side**2 != positions:
        raise ValueError(f"{positions} patches are no square of patches")
    head = stated.get("head_width", _HEAD_WIDTHS.get(width, 64))
    projection = entries.get("visual.proj")
    return _tower_config(entries, "visual.transformer.resblocks", width // head) | {
        "hidden_size": width,
        "patch_size": patch,
        "image_size": side * patch,
        "projection_dim": projection.shape[1] if projection else width,
    }


def _text_config(
    entries: Mapping[str, Entry], stated: Mapping[str, Any]
) -> dict[str, Any]:
    words, width = entries["token_embedding.weight"].shape
    heads = stated.get("heads", width // 64)
    return _tower_config(entries, "transformer.resblocks", heads) | {
        "hidden_size": width,
        "vocab_size": words,
        "max_position_embeddings": entries["positional_embedding"].shape[0],
        "projection_dim": entries["text_projection"].shape[1],
        # open_clip reads the text off at its highest token, which ends it.
        "eos_token_id": words - 1,
        "bos_token_id": words - 2,
    }


def _tower_config(
    entries: Mapping[str, Entry], blocks: str, heads: int
) -> dict[str, Any]:
    return {
        "num_hidden_layers": depth(entries, blocks),
        "num_attention_heads": heads,
        "intermediate_size": entries[f"{blocks}.0.mlp.c_fc.weight"].shape[0],
    }


def _prefixed(entries: Mapping[str, Entry]) -> Mapping[str, Entry]:
    """The names of a whole CLIPModel, also for a CLIPVisionModel saved on its own."""
    if "pre_layrnorm.weight" not in entries:
        return entries
    return {f"vision_model.{name}": entry for name, entry in entries.items()}

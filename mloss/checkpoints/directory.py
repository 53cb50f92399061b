"""Directories in Hugging Face layout: weights in one file or many, and a config."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mloss.checkpoints.checkpoint import Checkpoint, Entry, Layout
from mloss.checkpoints.clip import config_of_module
from mloss.checkpoints.clip_names import is_open_clip
from mloss.checkpoints.inert_pickle import Inert
from mloss.checkpoints.listing import listing
from mloss.checkpoints.safetensors_file import safetensors_entries
from mloss.checkpoints.torch_file import torch_file

# The file with the weights and the one with the configuration, in order of preference.
_FILES = {
    "model.safetensors": "config.json",
    "model.safetensors.index.json": "config.json",
    "pytorch_model.bin": "config.json",
    "pytorch_model.bin.index.json": "config.json",
    "adapter_model.safetensors": "adapter_config.json",
    "adapter_model.bin": "adapter_config.json",
    "open_clip_model.safetensors": "open_clip_config.json",
    "open_clip_pytorch_model.safetensors": "open_clip_config.json",
    "open_clip_pytorch_model.bin": "open_clip_config.json",
}
# What wrappers put before the names: parallel, compiled and task-vector encoders.
_PREFIXES = ("module.", "_orig_mod.", "model.")


def open_directory(path: Path) -> Checkpoint:
    """Open the checkpoint in a directory. Raises ValueError where there is none."""
    for name in _FILES:
        if (path / name).is_file():
            return replace(open_file(path / name), source=str(path))
    raise ValueError(
        f"{path} holds none of {', '.join(list(_FILES)[:4])} and no peft or open_clip "
        "weights; weights of TensorFlow or Flax must be saved by transformers first"
    )


def open_file(path: Path) -> Checkpoint:
    """Open one file of weights, or the index of a sharded checkpoint."""
    if path.name.endswith(".index.json"):
        entries, module = _sharded(path), None
    else:
        entries, module = _weights(path)
    beside = path.parent / _FILES.get(path.name, "")
    if path.name.startswith("adapter_model."):
        layout: Layout = "lora"
    elif is_open_clip(entries := _without_wrapper(entries)):
        layout, beside = "open_clip", path.parent / "open_clip_config.json"
    else:
        layout = "transformers" if beside.is_file() else "plain"
    config = read_json(beside) if beside.is_file() else None
    if layout == "open_clip" and module is not None:
        config = config_of_module(module) or config
    return Checkpoint(str(path), entries, layout, config, path.parent)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ValueError naming the file where it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object")
    return content


def _weights(path: Path) -> tuple[dict[str, Entry], Inert | None]:
    if path.suffix == ".safetensors":
        return safetensors_entries(path), None
    return torch_file(path)


def _sharded(index: Path) -> dict[str, Entry]:
    """The weights of all shards. Raises ValueError where index and shards disagree."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{index} has no weight_map")
    entries: dict[str, Entry] = {}
    for name in sorted(set(map(str, places.values()))):
        shard = index.parent / name
        if Path(name).name != name or not shard.is_file():
            raise ValueError(
                f"{index} lists the shard {name!r}, which is not beside it"
            )
        entries |= _weights(shard)[0]
    if missing := set(places) - set(entries):
        raise ValueError(f"the shards of {index} lack {listing(missing)}")
    return entries


def _without_wrapper(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Names without the prefix that all have from the module around the model.

    "model." is one only around open_clip's CLIP; others have a part of that name.
    """
    for prefix in _PREFIXES:
        bare = {name.removeprefix(prefix): entry for name, entry in entries.items()}
        wrapped = all(name.startswith(prefix) for name in entries)
        if wrapped and (prefix != "model." or is_open_clip(bare)):
            entries = bare
    return dict(entries)

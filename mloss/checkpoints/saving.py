"""A merged model written as a directory that `transformers` loads."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from mloss.checkpoints.checkpoint import Checkpoint, Entry
from mloss.checkpoints.clip import to_transformers
from mloss.checkpoints.listing import listing
from mloss.checkpoints.safetensors_file import stored_size, write_safetensors

# Tokenizers, processors and their like, in the directory or in a folder of its own.
_BESIDE = ("*.json", "*.txt", "*.model", "*.jinja")
# What shows that a directory holds a checkpoint.
_CHECKPOINTS = ("*.safetensors", "*.bin", "*.index.json")
_NOT_BESIDE = ("config.json", "*.index.json", "adapter_*", "open_clip_*")


def save_checkpoint(
    state: Mapping[str, Tensor],
    base: Checkpoint,
    out: str | os.PathLike[str],
    *,
    shard_size: int = 5_000_000_000,
    overwrite: bool = False,
    notes: Mapping[str, str] | None = None,
) -> Path:
    """Write a state with the base's names as a directory in Hugging Face layout.

    Tensors get the base's dtypes; they are asked for one at a time, so that a lazy
    state is never held whole. Weights beyond `shard_size` bytes go into several files.
    The config is the base's, and so are tokenizer and processor files. An open_clip
    base is written as transformers' CLIP; a base without config gives weights alone.
    `notes` are further files, the text of each by its name.
    The directory appears under its name when it is whole. Raises ValueError for names
    or shapes that are not the base's, and for an `out` that holds files already unless
    `overwrite`, which replaces it.
    """
    out = Path(out)
    check_free(out, overwrite=overwrite)
    merged = _as_checkpoint(state, base)
    with _appearing(out) as directory:
        _write_weights(directory, merged.entries, shard_size)
        if merged.config is not None:
            text = json.dumps(merged.config, indent=2) + "\n"
            (directory / "config.json").write_text(text, encoding="utf-8")
            _copy_beside(base.directory, directory)
        for name, text in (notes or {}).items():
            (directory / name).write_text(text, encoding="utf-8")
    return out


def check_free(out: Path, *, overwrite: bool = False) -> None:
    """Raise ValueError where a directory to write holds files that are to stay.

    Only a checkpoint is replaced, whatever `overwrite` says.
    """
    if out.is_file():
        raise ValueError(f"{out} is a file: give a directory")
    if not out.exists() or not any(out.iterdir()):
        return
    if not overwrite:
        raise ValueError(f"{out} already holds files: give another directory")
    if not any(any(out.glob(name)) for name in _CHECKPOINTS):
        raise ValueError(
            f"{out} holds no checkpoint to replace: give another directory"
        )


def _as_checkpoint(state: Mapping[str, Tensor], base: Checkpoint) -> Checkpoint:
    """The state as a checkpoint in transformers' layout and the base's dtypes."""
    if different := state.keys() ^ base.entries.keys():
        raise ValueError(
            f"the state to save and {base.source} differ in {listing(different)}"
        )
    entries = {
        name: Entry(entry.shape, entry.dtype, partial(_read, state, name, entry.dtype))
        for name, entry in base.entries.items()
    }
    merged = replace(base, entries=entries)
    return to_transformers(merged) if base.layout == "open_clip" else merged


def _read(state: Mapping[str, Tensor], name: str, dtype: torch.dtype) -> Tensor:
    return state[name].to(dtype)


def _write_weights(
    directory: Path, entries: Mapping[str, Entry], shard_size: int
) -> None:
    shards = _shards(entries, shard_size)
    if len(shards) == 1:
        write_safetensors(directory / "model.safetensors", entries)
        return
    places: dict[str, str] = {}
    for index, names in enumerate(shards, start=1):
        file = f"model-{index:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(directory / file, {name: entries[name] for name in names})
        places |= dict.fromkeys(names, file)
    total = sum(map(stored_size, entries.values()))
    index_text = {"metadata": {"total_size": total}, "weight_map": places}
    (directory / "model.safetensors.index.json").write_text(
        json.dumps(index_text, indent=2) + "\n", encoding="utf-8"
    )


def _shards(entries: Mapping[str, Entry], shard_size: int) -> list[list[str]]:
    """Names in their order, cut where the next tensor would be too much."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, entry in entries.items():
        size = stored_size(entry)
        if shards[-1] and filled + size > shard_size:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _copy_beside(source: Path | None, directory: Path) -> None:
    if source is None or not (source / "config.json").is_file():
        return
    for pattern in _BESIDE:
        for file in (*source.glob(pattern), *source.glob(f"[!.]*/{pattern}")):
            name = file.relative_to(source)
            if not any(fnmatch(str(name), skipped) for skipped in _NOT_BESIDE):
                (directory / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(file, directory / name)


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A new directory that takes its name when the block ends well, or vanishes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    written = unfinished / "new"
    try:
        written.mkdir()
        yield written
        replaced = unfinished / "old"
        if out.exists():
            out.rename(replaced)
        try:
            written.rename(out)
        except BaseException:
            if replaced.exists():
                replaced.rename(out)
            raise
    finally:
        shutil.rmtree(unfinished)

"""A merged model written as a directory that `transformers` loads."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from mloss.checkpoints.checkpoint import Checkpoint, Entry
from mloss.checkpoints.clip import to_transformers
from mloss.checkpoints.companions import companions
from mloss.checkpoints.listing import listing
from mloss.checkpoints.safetensors_writing import stored_size, write_safetensors
from mloss.checkpoints.unfinished import (
    Plan,
    appearing,
    check_left_over,
    hold_dear,
)

# The texts of further files by their names, or what gives them, the weights written.
Notes = Mapping[str, str] | Callable[[Path], Mapping[str, str]]

# What shows that a directory holds a checkpoint.
_CHECKPOINTS = ("config.json", "mloss.json", "model*.safetensors", "pytorch_model*.bin")


def save_checkpoint(
    state: Mapping[str, Tensor],
    base: Checkpoint,
    out: str | os.PathLike[str],
    *,
    shard_size: int = 5_000_000_000,
    overwrite: bool = False,
    notes: Notes | None = None,
    plan: Plan | None = None,
    resume: bool = False,
    moved_on: Callable[[int, int], None] = lambda *_: None,
) -> Path:
    """Write a state with the base's names as a directory in Hugging Face layout.

    Tensors get the base's dtypes; they are asked for one at a time, so that a lazy
    state is never held whole. Weights beyond `shard_size` bytes go into several files.
    The config is the base's, and so are tokenizer and processor files. An open_clip
    base is written as transformers' CLIP; a base without config gives weights alone.
    `notes` are further files, or a function that gives them once the directory holds
    the others.
    `moved_on` hears how many tensors are written, of how many.

    The directory appears under its name when it is whole. Where `plan` says what the
    state is made from, what was written before an interruption stays beside it, and a
    call that is to `resume` goes on with the next tensor (`appearing`). What fails once
    the weights are whole, in `notes` for one, leaves them there too.

    Raises ValueError for names or shapes that are not the base's, numbers that are not
    finite, an `out` that holds files already unless `overwrite`, which replaces it, to
    `resume` without a plan, and as `check_left_over` does.
    """
    out = Path(out)
    if resume and plan is None:
        raise ValueError("plan must say what the state is made from, to resume")
    check_free(out, overwrite=overwrite)
    check_left_over(out, plan or {}, resume=resume, discard=overwrite and not resume)
    merged = _as_checkpoint(state, base)
    with appearing(out, plan=plan, resume=resume) as directory:
        _write_weights(directory, merged.entries, shard_size, moved_on)
        if merged.config is not None:
            text = json.dumps(merged.config, indent=2) + "\n"
            (directory / "config.json").write_text(text, encoding="utf-8")
            _copy_companions(base.directory, directory)
        hold_dear(directory)
        further = notes(directory) if callable(notes) else notes or {}
        for name, text in further.items():
            (directory / name).write_text(text, encoding="utf-8")
    return out


def check_free(out: Path, *, overwrite: bool = False) -> None:
    """Raise ValueError where a directory to write holds files that are to stay.

    Only a checkpoint is replaced, whatever `overwrite` says, and never the current
    directory or a mount point, which cannot be renamed.
    """
    place = out.resolve()
    if place.is_dir() and (place.is_mount() or Path.cwd().is_relative_to(place)):
        raise ValueError(
            f"{out} is or holds the current directory, or is a mount point: give "
            "another directory"
        )
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
    directory: Path,
    entries: Mapping[str, Entry],
    shard_size: int,
    moved_on: Callable[[int, int], None],
) -> None:
    done = count(1)
    shards = _shards(entries, shard_size)
    places: dict[str, str] = {}
    for index, names in enumerate(shards, start=1):
        file = "model.safetensors"
        if len(shards) > 1:
            file = f"model-{index:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(
            directory / file,
            {name: entries[name] for name in names},
            written=lambda _: moved_on(next(done), len(entries)),
        )
        places |= dict.fromkeys(names, file)
    if len(shards) > 1:
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


def _copy_companions(source: Path | None, directory: Path) -> None:
    if source is None or not (source / "config.json").is_file():
        return
    for file in companions(source):
        copy = directory / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)

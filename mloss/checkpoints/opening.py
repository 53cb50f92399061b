"""One way into every format: a path or a hub id in, a lazy checkpoint out."""

import os
from dataclasses import replace
from pathlib import Path

from mloss.checkpoints.checkpoint import Checkpoint
from mloss.checkpoints.directory import open_directory, open_file
from mloss.checkpoints.hub import hub_directory, is_hub_id


def open_checkpoint(
    source: str | os.PathLike[str], *, revision: str | None = None
) -> Checkpoint:
    """Open what a person has: a directory, a file of weights, or a model of the hub.

    Only names, shapes and dtypes are read; no code from the files is run. `revision`
    is a branch, tag or commit of the hub. Raises ValueError in one line for what does
    not exist, is damaged, would run code or cannot be read.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return open_directory(path)
    if path.is_file():
        return open_file(path)
    name = os.fspath(source)
    if not is_hub_id(name):
        raise ValueError(f"{name} does not exist")
    directory = hub_directory(name, revision=revision)
    return replace(open_directory(directory), source=name)

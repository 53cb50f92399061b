"""Which files a model is read from, and in what state they are."""

from collections.abc import Iterable
from pathlib import Path

from mloss.checkpoints import Checkpoint

# Files of weights in a directory, and how they are to be read.
_READ = ("*.safetensors", "*.bin", "*.pt", "*.json")


def model_files(name: str, model: Checkpoint) -> list[Path]:
    """The files of what a command line calls a model: a path, or an id of the hub."""
    path = Path(name).expanduser()
    if not path.exists() and model.directory is not None:
        path = model.directory
    if not path.is_dir():
        return [path]
    return sorted(file for pattern in _READ for file in path.glob(pattern))


def file_states(files: Iterable[Path]) -> dict[str, list[int]]:
    """Size and time of change of each file, by its absolute path."""
    found = ((file.absolute(), file.stat()) for file in files)
    return {str(file): [state.st_size, state.st_mtime_ns] for file, state in found}

"""What decides the result of a merge: only the same one can be gone on with."""

import argparse
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from mloss.checkpoints.companions import companions
from mloss.checkpoints.unfinished import Plan
from mloss.commands.family import Family
from mloss.commands.method_options import files_of_options
from mloss.commands.model_files import file_states, model_files
from mloss.commands.provenance import version_of
from mloss.merging import METHODS

_LIBRARIES = ("mloss", "torch", "transformers")


def merge_plan(
    options: argparse.Namespace, family: Family, given: Mapping[str, str]
) -> Plan:
    """Everything that the weights of the result depend on.

    Files are known by their size and time of change; `given` is what was given of the
    method's own options. Samples that only the gap is measured on may change.
    """
    return {
        **{f"version of {name}": version_of(name) for name in _LIBRARIES},
        "method": options.method,
        "option of the method": dict(sorted(given.items())),
        "file of an option": {
            name: _state(path)
            for name, path in files_of_options(options.method, given).items()
        },
        "base or source": [file_states(files) for files in _models(options, family)],
        "weights": family.weights.tolist(),
        "seed": options.seed,
        "head": [_state(path) for path in options.head or ()],
        "max-shard-size": options.max_shard_size,
        "quick-gelu": options.quick_gelu,
        **_samples(options, family),
    }


def input_files(
    options: argparse.Namespace, family: Family, given: Mapping[str, str]
) -> list[str | Path]:
    """The files and folders that a merge is made from, as `merge_plan` gets them."""
    return [
        *(options.base, *options.sources),
        *(file for files in _models(options, family) for file in files),
        *(*(options.data or ()), *(options.head or ())),
        *([options.processor] if options.processor else ()),
        *files_of_options(options.method, given).values(),
    ]


def _samples(options: argparse.Namespace, family: Family) -> Plan:
    """What a method that looks at samples sees; nothing for others."""
    if not METHODS[options.method].needs & {"data", "task_data"}:
        return {}
    processor = options.processor or family.base.directory
    return {
        "data": [_state(path) for path in options.data],
        "number of samples": [options.samples, options.batch],
        "processor": processor
        and [str(processor.absolute()), _digest(companions(processor))],
    }


def _models(options: argparse.Namespace, family: Family) -> list[list[Path]]:
    names = (options.base, *options.sources)
    models = (family.base, *family.sources)
    return [model_files(name, one) for name, one in zip(names, models, strict=True)]


def _state(path: Path) -> list[str]:
    """A file, or a folder with all that is in it; what is not there has no files."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return [str(path.absolute()), _digest(file for file in files if file.is_file())]


def _digest(files: Iterable[Path]) -> str:
    text = json.dumps(file_states(files))
    return hashlib.sha256(text.encode()).hexdigest()

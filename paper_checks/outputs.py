"""The files of a run, each put under its final name only when all are whole."""

import errno
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from paper_checks.record import Checked


def claims_json(checked: Sequence[Checked]) -> str:
    """`claims.json`: one object for each claim; no NaN, which JSON does not have."""
    records = [one.as_json() for one in checked]
    return json.dumps(records, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def prepare_outputs(out: Path, names: Iterable[str]) -> None:
    """Make the folders of files by relative path under `out`, and try to write there.

    Raises OSError where a file stands in place of a folder or a folder in place of a
    file, and where `out` takes no files.
    """
    for name in names:
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with TemporaryDirectory(dir=out, prefix=".unfinished-"):
        pass


def require_folder(path: Path) -> None:
    """Raise NotADirectoryError where a file stands in the way of a folder's path."""
    there = next(each for each in (path, *path.parents) if each.exists())
    if not there.is_dir():
        code = errno.ENOTDIR
        raise NotADirectoryError(code, os.strerror(code), str(there))


def write_outputs(out: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write contents by relative path under `out`, none before all are complete.

    Everything is first written to a scratch folder within `out`; only then are files
    moved to their names, each in one step. Raises OSError where `out` cannot be made.
    """
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out, prefix=".unfinished-") as scratch:
        for name, content in contents.items():
            unfinished = Path(scratch) / name
            unfinished.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(content)
        for name in contents:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(scratch) / name).replace(out / name)
    return [out / name for name in contents]

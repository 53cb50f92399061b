"""A sweep's finished cells on disk, one line of JSON each, as soon as they are there.

The first line is the settings; every later one is a run that starts or a cell that it
finished. A journal outlives a killed run and ends when the table is written.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simulate.cells import Row
from simulate.provenance import Run
from simulate.settings import Settings
from simulate.sweep_table import Results

BEGINNING = b'{"format": '  # of the first line, however it was torn


def read_journal(path: Path, settings: Settings) -> Results:
    """Read what a stopped run left; nothing where there is no journal.

    A last line without its end was torn when the run stopped, and is cut off; a
    journal that has no finished cell yet is removed. Raises ValueError where another
    line is not a journal's, or the settings are others.
    """
    content = path.read_bytes() if path.exists() else b""
    results = Results()
    if not content:
        return results
    whole, _, torn = content.rpartition(b"\n")
    if not whole and torn.startswith(BEGINNING[: len(torn)]):
        path.unlink()
        return results
    header, *entries = (
        _entry(line, f"{path}, line {number}")
        for number, line in enumerate(whole.split(b"\n"), start=1)
    )
    if "format" in header and not any("row" in entry for entry in entries):
        path.unlink()
        return results
    settings.require_same(header, path=path)
    for number, entry in enumerate(entries, start=2):
        try:
            _add(entry, results)
        except (KeyError, TypeError, ValueError):  # fields that are not ours
            raise _foreign(f"{path}, line {number}") from None
    if torn:
        os.truncate(path, len(content) - len(torn))
    return results


@contextmanager
def journal(
    path: Path, settings: Settings, run: Run
) -> Iterator[Callable[[Row], None]]:
    """Begin or continue a journal with a run that starts; gives what adds its rows.

    A row is on the disk when the call returns.
    """
    with path.open("ab") as file:

        def add(entry: dict[str, Any]) -> None:
            file.write(json.dumps(entry, allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

        if file.tell() == 0:
            add(settings.as_header())
        add({"run": vars(run)})
        yield lambda row: add({"row": row.as_json()})


def _add(entry: dict[str, Any], results: Results) -> None:
    if "run" in entry:
        results.runs.append(Run(**entry["run"]))
    elif "row" in entry:
        row = Row.from_json(entry["row"])
        results.rows[row.cell] = row


def _entry(line: bytes, where: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        raise _foreign(where)
    return entry


def _foreign(where: str) -> ValueError:
    return ValueError(
        f"{where}, is not of a sweep's journal; move the file away to start anew"
    )

"""The file of a sweep's results: a journal while it grows, a Parquet table after.

A sweep without a file has `None` for its path, and nothing is kept.
"""

import errno
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from simulate.cells import Cell, Row
from simulate.journal import journal, read_journal
from simulate.provenance import Run
from simulate.settings import Settings
from simulate.sweep_table import Results, read_table, write_table


def journal_path(out: Path) -> Path:
    """Where the journal of the table `out` lies: beside it."""
    return out.with_name(out.name + ".journal")


def prepared(out: Path) -> Path:
    """Make the file's folder; raise IsADirectoryError where `out` is one itself."""
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(out))
    return out


def stored(out: Path | None, settings: Settings) -> Results:
    """What table and journal hold; both, where a run was killed between the two."""
    if out is None:
        return Results()
    table = read_table(out, settings)
    left = read_journal(journal_path(out), settings)
    runs = dict.fromkeys([*table.runs, *left.runs])
    return Results(list(runs), table.rows | left.rows)


def recorded(
    out: Path | None, settings: Settings, run: Run
) -> AbstractContextManager[Callable[[Row], object]]:
    """The function that puts a row into the journal."""
    if out is None:
        return nullcontext(_forgotten)
    return journal(journal_path(out), settings, run)


def complete(
    out: Path | None, results: Results, cells: Iterable[Cell], settings: Settings
) -> None:
    """Where a journal stands, turn it into a table, the given cells first."""
    if out is None or not journal_path(out).exists():
        return
    order = dict.fromkeys([*cells, *results.rows])
    write_table(results.table(settings, order), out)
    journal_path(out).unlink()


def _forgotten(row: Row) -> None:
    del row

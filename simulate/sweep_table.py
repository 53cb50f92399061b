"""A sweep's results as a table with its provenance, in memory and as Parquet."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from simulate.cells import Cell, Row
from simulate.provenance import Run
from simulate.settings import Settings

METADATA = b"mloss.sweep"
COLUMNS = pa.schema(
    [
        pa.field("activation", pa.string(), nullable=False),
        pa.field("k", pa.float64(), nullable=False),
        pa.field("sigma", pa.float64(), nullable=False),
        pa.field("q", pa.int64(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("stderr", pa.float64(), nullable=False),
        pa.field("degrees", pa.int64(), nullable=False),
        pa.field("n", pa.int64(), nullable=False),
        pa.field("drawn", pa.int64(), nullable=False),
        pa.field("reached", pa.bool_()),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("finished", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)


@dataclass
class Results:
    """The runs of a sweep so far, oldest first, and the cells that they finished."""

    runs: list[Run] = field(default_factory=list)
    rows: dict[Cell, Row] = field(default_factory=dict)

    def table(self, settings: Settings, cells: Iterable[Cell]) -> pa.Table:
        """The rows of the given cells in their order, with `COLUMNS` and metadata.

        The metadata's entry "mloss.sweep" is JSON: format, settings and runs.
        """
        metadata = {
            **settings.as_header(),
            "runs": [asdict(run) for run in self.runs],
        }
        schema = COLUMNS.with_metadata({METADATA: json.dumps(metadata)})
        return pa.Table.from_pylist([vars(self.rows[c]) for c in cells], schema=schema)


def read_table(path: Path, settings: Settings) -> Results:
    """Read a Parquet file of `write_table`; nothing where there is none.

    Raises ValueError where the file is not a sweep's or has other settings.
    """
    if not path.exists():
        return Results()
    try:
        table = pq.read_table(path)
        metadata = json.loads(table.schema.metadata[METADATA])
        settings.require_same(metadata, path=path)
        runs = [Run(**run) for run in metadata["runs"]]
        rows = [Row(**entry) for entry in table.to_pylist()]
    except (
        pa.ArrowInvalid,  # no Parquet
        json.JSONDecodeError,  # the rest: Parquet that holds something else
        AttributeError,
        KeyError,
        TypeError,
    ) as error:
        raise ValueError(
            f"{path} is not a table that a sweep wrote; choose another file"
        ) from error
    return Results(runs, {row.cell: row for row in rows})


def write_table(table: pa.Table, path: Path) -> None:
    """Write as Parquet under a scratch name, then put it in place in one step."""
    with TemporaryDirectory(dir=path.parent, prefix=".sweep-") as scratch:
        whole = Path(scratch) / path.name
        with whole.open("wb") as file:
            pq.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
        whole.replace(path)

"""The files of a run, each put under its final name only when all are whole."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from paper_checks.record import Checked


def claims_json(checked: Sequence[Checked]) -> str:
    """`claims.json`: one object for each claim; no NaN, which JSON does not have."""
    records = [one.as_json() for one in checked]
    return json.dumps(records, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


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

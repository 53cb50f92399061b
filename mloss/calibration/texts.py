"""Texts from a file with one on each line, plain or as JSON."""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

# Names a text goes by in a JSON line; the first one present is read.
FIELDS = ("text", "sentence", "content")


def texts(path: Path) -> dict[str, str]:
    """Texts of a .txt or .jsonl file, gzipped or not, by line; empty lines are none.

    Raises ValueError naming the file and the line where it is not what it says.
    """
    of_line = _json_text if ".jsonl" in path.suffixes else _plain_text
    opened: Any = gzip.open if path.suffix == ".gz" else open
    found = {}
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    where = f"{path.name}:{number}"
                    found[where] = of_line(line, where)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as UTF-8 text: {error}") from None
    if not found:
        raise ValueError(f"{path} has no text in it")
    return found


def _plain_text(line: str, _: str) -> str:
    return line.strip()


def _json_text(line: str, where: str) -> str:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise ValueError(f"{where} must be a JSON object with the key 'text'")
    for field in FIELDS:
        if isinstance(record.get(field), str):
            return str(record[field])
    raise ValueError(
        f"{where} has no text under {', '.join(FIELDS)}; it has {', '.join(record)}"
    )

"""The tables of docs/networks.md are those of the stored benchmark."""

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tables():
    stored = (ROOT / "benchmarks/results/networks.json").read_text(encoding="utf-8")
    made = runpy.run_path(str(ROOT / "benchmarks/networks.py"))["tables"]
    return made(json.loads(stored)).split("\n\n")


def test_every_table_is_as_stored(tables):
    text = (ROOT / "docs/networks.md").read_text(encoding="utf-8")
    assert [table for table in tables if table not in text] == []


def test_no_other_row_is_there(tables):
    text = (ROOT / "docs/networks.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows == "\n".join(tables).splitlines()

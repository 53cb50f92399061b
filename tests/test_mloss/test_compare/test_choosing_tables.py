"""The tables of docs/choosing.md are what its benchmark stored."""

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs/choosing.md").read_text(encoding="utf-8")


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # as the script does, and then back
    return runpy.run_path(str(ROOT / "benchmarks/choosing.py"))


@pytest.fixture
def stored():
    text = (ROOT / "benchmarks/results/choosing.json").read_text(encoding="utf-8")
    return json.loads(text)


@pytest.mark.parametrize(
    ("study", "table"),
    [("digits", "table"), ("digits", "by_rate"), ("minilm", "by_merge")],
)
def test_every_table_is_as_stored(benchmark, stored, study, table):
    assert benchmark[table](stored[study]) in DOCS


def test_what_is_within_the_noise_is_as_stored(benchmark, stored):
    said = " ".join(DOCS.split())
    assert "at 8 samples a task 18 of 21 and 11 points" in said
    assert "at 32 samples 11 and 5, at 128 samples 6 and 2" in said
    spans = benchmark["noise"](stored["digits"]).splitlines()
    assert "18 of 21 merges within the noise of the leader, 10.6 points" in spans[0]
    assert "11 of 21 merges within the noise of the leader, 4.8 points" in spans[1]
    assert "6 of 21 merges within the noise of the leader, 2.0 points" in spans[2]
    assert all(line.endswith("in 15 of 15 pools") for line in spans)

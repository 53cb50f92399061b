import io
import json

import pytest
import torch
from rich.console import Console

from mloss.compare import Agreement, Candidate
from mloss.compare.outcomes import Outcome, ranked
from mloss.gap import Gap
from mloss.report.comparison import as_json, certainty, show
from mloss.report.short_names import short_names

TASKS = ("letters", "numbers")


def merged(name, *rights, divergence=0.1, reads="classes"):
    """A merge that agrees on the first of 20 samples of each task."""
    agreements = []
    for right in rights:
        agrees = torch.zeros(20, dtype=torch.float64)
        agrees[:right] = 1
        spread = torch.full((20,), divergence, dtype=torch.float64)
        agreements.append(Agreement(agrees, spread, reads))
    gap = Gap(mean=1.0, stderr=0.1, relative=0.25, samples=40)
    made = Candidate("ties", {"density": 0.2}) if name == "ours" else None
    return Outcome(name, made, tuple(agreements), gap, shared=False, merged=dict)


@pytest.fixture
def found():
    rivals = [merged("near", 18, 15), merged("far", 3, 2)]
    return ranked([*rivals, merged("ours", 18, 16)], {"never": "it may not"})


def test_certainty_names_who_is_level_and_what_it_would_take(found):
    said = certainty(found)
    more = found.leads[0].more
    assert said.startswith(
        "ours leads, but 1 more merge is within the noise of 40 samples: near. "
        f"To tell it from near takes about {more:,} samples more"
    )
    assert "far" not in said


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ([], "ours is the only merge."),
        ([("far", 3, 2)], "ours leads by more than the noise of 40 samples."),
        ([("same", 18, 16)], "same agrees with the experts as often."),
    ],
)
def test_other_endings(others, words):
    rivals = [merged(name, *right, divergence=0.2) for name, *right in others]
    assert certainty(ranked([merged("ours", 18, 16), *rivals], {})).endswith(words)


def test_the_table_has_every_merge_and_every_task(found):
    console = Console(width=100, file=io.StringIO())
    show(console, found, tasks=TASKS)
    shown = console.file.getvalue()
    words = [line.split() for line in shown.splitlines() if line.strip()]
    lines = {first: rest for first, *rest in words}
    assert "agreement" in shown
    assert "letters" in shown
    assert lines["far"] == ["15.0", "10.0"]
    assert "Not compared: never: it may not" in shown
    assert "another promise" in shown


@pytest.mark.parametrize(
    ("reads", "words"),
    [
        ("classes", "one small digits network, with 128 samples a task"),
        ("neighbours", "has not been measured"),
    ],
)
def test_it_says_what_the_order_is_known_from(reads, words):
    console = Console(width=1000, file=io.StringIO())
    show(console, ranked([merged("one", 18, 16, reads=reads)], {}), tasks=TASKS)
    shown = console.file.getvalue()
    assert words in shown
    assert ("rank correlation" in shown) == (reads == "classes")


def test_the_record_is_json_with_every_number(found):
    record = json.loads(json.dumps(as_json(found, tasks=TASKS), allow_nan=False))
    best = record["merges"][0]
    assert best["name"] == "ours"
    assert best["method"] == "ties"
    assert best["options"] == {"density": 0.2}
    assert best["agreement"] == pytest.approx(0.85)
    low, high = best["interval"]
    assert low < 0.85 < high
    assert [task["agreement"] for task in best["tasks"]] == [0.9, 0.8]
    assert record["samples"] == 40
    assert record["refused"] == {"never": "it may not"}
    assert [lead["over"] for lead in record["leads"]] == ["near", "far"]


def test_names_are_short_where_that_tells_them_apart():
    assert short_names(["a/one", "b/two"]) == ["one", "two"]
    assert short_names(["a/one", "b/one"]) == ["a/one", "b/one"]

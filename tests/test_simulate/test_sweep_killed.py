"""A sweep in a process of its own, stopped half-way and started again."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from simulate.sweep import sweep

RATIOS = [0.5, 1, 2, 4, 8, 16]
SAMPLES = 1_500_000
COMMAND = [
    *(sys.executable, "-m", "simulate", "sweep", "--activations", "relu,gelu"),
    *("--ratios", ",".join(map(str, RATIOS)), "--qs", "2,3", "--method", "mc"),
    *("--n", str(SAMPLES), "--workers", "2"),
]


@pytest.fixture(scope="module")
def uninterrupted():
    return sweep(
        *(["relu", "gelu"], RATIOS, [1.0]),
        qs=[2, 3],
        method="mc",
        n=SAMPLES,
        rng=np.random.default_rng(0),
        workers=1,
    )


@pytest.fixture
def out(tmp_path):
    return tmp_path / "sweep.parquet"


@pytest.fixture
def journal(out):
    return out.with_name("sweep.parquet.journal")


def rows_in(journal):
    """The rows of the whole lines, by their cells."""
    lines = journal.read_text().split("\n")[:-1] if journal.exists() else []
    rows = [entry["row"] for entry in map(json.loads, lines) if "row" in entry]
    return {(row["activation"], row["k"], row["q"]): row for row in rows}


def stop(out, journal, *, by, after):
    """Send a signal once so many cells are finished; the status and last words.

    It goes to the workers too, as Ctrl-C does on a terminal.
    """
    words = out.with_name("words")
    with words.open("w") as stderr:
        started = subprocess.Popen(  # noqa: S603 - our own command
            [*COMMAND, "--out", out],
            stderr=stderr,
            start_new_session=True,
            preexec_fn=heed_interrupts,
        )
        while len(rows_in(journal)) < after:
            assert started.poll() is None, "it ended before it could be stopped"
            time.sleep(0.005)
        os.killpg(started.pid, by)
        return started.wait(), words.read_text()


def heed_interrupts():
    """As on a terminal: a shell's background jobs, such as this run, ignore them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def numbers(table):
    return table.drop_columns(["seconds", "finished"]).to_pylist()


def assert_resumes(out, journal, uninterrupted):
    kept = rows_in(journal)
    assert 0 < len(kept) < len(uninterrupted)
    subprocess.run([*COMMAND, "--out", out], check=True)  # noqa: S603 - our own
    assert not journal.exists()
    table = pq.read_table(out)
    assert numbers(table) == numbers(uninterrupted)
    for row in table.to_pylist():
        if earlier := kept.get((row["activation"], row["k"], row["q"])):
            row["finished"] = row["finished"].isoformat()
            assert row == earlier


def test_a_sweep_killed_twice_redoes_no_finished_cell(out, journal, uninterrupted):
    for after in (4, 10):
        status, _ = stop(out, journal, by=signal.SIGKILL, after=after)
        assert status == -signal.SIGKILL
        assert not out.exists()
    assert_resumes(out, journal, uninterrupted)


def test_an_interrupted_sweep_says_how_to_go_on(out, journal, uninterrupted):
    status, words = stop(out, journal, by=signal.SIGINT, after=4)
    assert status == 130
    assert words == (
        "python -m simulate sweep: interrupted; finished cells are in "
        f"{journal}; the same command goes on\n"
    )
    assert_resumes(out, journal, uninterrupted)

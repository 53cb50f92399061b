import json
import subprocess
import sys

import pytest

from mloss import gap, merge
from mloss.calibration import open_calibration
from mloss.commands import main

NAMES = ("one", "two", "three")


def arguments(family, *options):
    models = [str(family / name) for name in ("base", *NAMES)]
    data = ["--data", str(family / "texts.jsonl"), "--samples", "8"]
    return ["rank", *models, *data, *options]


def test_pairs_and_all_are_ranked_by_their_measured_gap(family, capsys):
    assert main(arguments(family, "--json")) == 0
    record = json.loads(capsys.readouterr().out)
    pairs, whole = record["sizes"]
    assert [len(one["best"]) for one in (pairs, whole)] == [3, 1]
    gaps = [row["gap"] for row in pairs["best"]]
    assert gaps == sorted(gaps)
    data = open_calibration(family / "texts.jsonl", checkpoint=family / "base")
    for row in (*pairs["best"], *whole["best"]):
        merged = merge(family / "base", row["models"], method="average")
        measured = gap(merged.state, row["models"], data.batches(8))
        assert row["gap"] == pytest.approx(measured.mean, rel=1e-6)
        assert row["stderr"] == pytest.approx(measured.stderr, rel=1e-5)
    for one in (pairs, whole):
        # Weights are chosen to come no farther than equal ones, by the prediction.
        equal = {tuple(row["models"]): row["predicted_gap"] for row in one["best"]}
        weighted = one["weighted"]
        assert weighted["predicted_gap"] <= equal[tuple(weighted["models"])]


def test_what_is_finished_is_kept(family, tmp_path, capsys):
    assert main(arguments(family, "--out", str(tmp_path), "--size", "2", "--json")) == 0
    first = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "ranking.json").read_text()) == first
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "pool").iterdir()}
    assert len([path for path in stored if path.name.startswith("pair-")]) == 3
    assert main(arguments(family, "--out", str(tmp_path), "--size", "2")) == 0
    assert "Best of 3 subsets of 2" in capsys.readouterr().out
    again = {path: path.stat().st_mtime_ns for path in (tmp_path / "pool").iterdir()}
    assert again == stored


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "4"], "--size must be at most the 3 sources"),
        (["--top", "0"], "must be a whole number >= 1"),
    ],
)
def test_bad_input_is_one_line(family, capsys, options, message):
    try:
        status = main(arguments(family, *options))
    except SystemExit as leaving:
        status = leaving.code
    assert status == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_other_data_are_refused_where_results_lie(family, tmp_path, capsys):
    assert main(arguments(family, "--out", str(tmp_path))) == 0
    capsys.readouterr()
    assert main(arguments(family, "--out", str(tmp_path), "--seed", "1")) == 2
    assert "holds results for another data" in capsys.readouterr().err


def test_processes_give_the_same_ranking(family, capsys):
    options = ["--size", "2", "--size", "2", "--json"]
    assert main(arguments(family, *options)) == 0
    alone = json.loads(capsys.readouterr().out)["sizes"]
    # In a process of its own, which has no workers left over from other tests.
    found = subprocess.run(  # noqa: S603  # our own command
        [sys.executable, "-m", "mloss", *arguments(family, *options, "--jobs", "2")],
        capture_output=True,
        check=True,
        timeout=120,
    )
    assert json.loads(found.stdout)["sizes"] == alone
    assert len(alone) == 1


def test_one_sample_has_no_error(family, capsys):
    assert main(arguments(family, "--samples", "1", "--size", "3", "--json")) == 0
    (found,) = json.loads(capsys.readouterr().out)["sizes"]
    assert found["best"][0]["stderr"] is None


def test_twins_are_listed_once(family, capsys):
    twins = [str(family / name) for name in ("base", "one", "one", "two")]
    data = ["--data", str(family / "texts.jsonl"), "--samples", "4", "--size", "2"]
    assert main(["rank", *twins, *data, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["sizes"]
    assert len(found["best"]) == 3

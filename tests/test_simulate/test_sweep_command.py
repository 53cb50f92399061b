import json
from importlib import import_module

import pyarrow.parquet as pq
import pytest

from simulate.__main__ import main

SMALL = [
    *("sweep", "--activations", "relu,gelu", "--method", "mc", "--n", "1024"),
    *("--workers", "1"),
]
GRID = [*SMALL, "--ratios", "0.5,1e2", "--sigmas", "0.1", "--qs", "2,3"]


def refused(capsys, *arguments):
    """The one line that a bad command leaves."""
    try:
        status = main(arguments)
    except SystemExit as stopped:
        status = stopped.code
    shown = capsys.readouterr()
    assert status == 2
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    return shown.err


def test_json_is_the_rows_of_the_file(tmp_path, capsys):
    out = tmp_path / "sweep.parquet"
    assert main([*GRID, "--rtol", "0.5", "--out", str(out), "--json"]) == 0
    shown = capsys.readouterr()
    rows = pq.read_table(out).to_pylist()
    assert json.loads(shown.out) == [
        row | {"finished": row["finished"].isoformat()} for row in rows
    ]
    assert [(row["activation"], row["k"], row["q"]) for row in rows[:4]] == [
        ("relu", 0.05, 2),
        ("relu", 0.05, 3),
        ("relu", 10.0, 2),
        ("relu", 10.0, 3),
    ]
    assert shown.err == ""


def test_the_table_has_a_line_a_cell_and_says_what_fell_short(capsys):
    assert main([*SMALL, "--ks", "2,3", "--rtol", "0.02"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "activation",
        "k",
        "sigma",
        "q",
        "value",
        "stderr",
        "samples",
    ]
    assert [line.split()[:4] for line in lines] == [
        [name, k, "1", "2"] for name in ("relu", "gelu") for k in ("2", "3")
    ]
    assert all(line.endswith("short of --rtol") for line in lines)


def test_the_seed_decides_the_numbers(capsys):
    found = []
    for seed in ("0", "0", "1"):
        main([*GRID, "--seed", seed, "--json"])
        rows = json.loads(capsys.readouterr().out)
        found.append([row["value"] for row in rows])
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep", "--ks", "1"], "the following arguments are required: --activations"),
        (SMALL, "one of the arguments --ks --ratios is required"),
        ([*SMALL, "--ks", "1;2"], "--ks: must be float values with commas between"),
        ([*SMALL, "--ks", "1", "--ratios", "1"], "not allowed with argument --ks"),
        (
            [*SMALL, "--ratios", "1", "--sigmas", "1,2"],
            "--ratios are of k to one sigma",
        ),
        ([*SMALL, "--ks", "0"], "ks must be finite and above 0, got 0.0"),
        ([*SMALL, "--ks", "nan"], "ks must be finite and above 0, got nan"),
        ([*SMALL, "--ks", "1", "--qs", "1.5"], "--qs: must be int values"),
        ([*SMALL, "--ks", "1", "--method", "guess"], "method must be one of mc, "),
        ([*SMALL, "--ks", "1", "--n", "1"], "n must be at least 2, got 1"),
        ([*SMALL, "--ks", "1", "--rtol", "-1"], "rtol must be finite and above 0"),
        ([*SMALL, "--ks", "1", "--seed", "-1"], "--seed: must be a whole number"),
        ([*SMALL, "--ks", "1", "--workers", "0"], "workers must be at least 1, got 0"),
        ([*SMALL, "--ks", "1", "--cluster", "x"], "cluster must be the address of a"),
        (["sweep", "--ks", "1", "--activations", "relo"], "activation must be one of"),
        (["swoop"], "invalid choice: 'swoop'"),
    ],
)
def test_bad_input_exits_2_with_one_line(capsys, arguments, message):
    words = refused(capsys, *arguments)
    assert words.startswith("python -m simulate")
    assert message in words


def test_another_sweeps_file_exits_2_and_is_kept(tmp_path, capsys):
    out = tmp_path / "sweep.parquet"
    assert main([*GRID, "--out", str(out)]) == 0
    before = out.read_bytes()
    capsys.readouterr()
    words = refused(capsys, *GRID, "--out", str(out), "--seed", "1")
    assert f"{out} holds another sweep: seed is" in words
    assert out.read_bytes() == before


def test_a_folder_in_place_of_the_file_exits_2(tmp_path, capsys):
    words = refused(capsys, *GRID, "--out", str(tmp_path))
    assert words == f"python -m simulate sweep: {tmp_path}: Is a directory\n"


def test_an_unreachable_cluster_exits_2(capsys, monkeypatch):
    monkeypatch.setattr(import_module("simulate.workers"), "PATIENCE", 0.5)
    address = "tcp://127.0.0.1:9"
    words = refused(capsys, *GRID, "--cluster", address)
    assert f"no Dask scheduler answers at {address} within 0.5 s" in words


@pytest.mark.parametrize("command", [[], ["sweep"]])
def test_help_has_an_example(capsys, command):
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    assert "example: python -m simulate sweep" in capsys.readouterr().out

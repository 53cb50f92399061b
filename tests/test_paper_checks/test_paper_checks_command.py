import json
import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import theory
from figures.gallery import Plate
from paper_checks import __main__ as command
from paper_checks import gallery, outputs
from paper_checks.claims import approximations

LIGHT = ["cost-of-one-layer", "table-3-averages", "clip-accuracies"]


def small_figure(seed):
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, seed + 1])
    return figure


@pytest.fixture(autouse=True)
def small_gallery(monkeypatch):
    plates = {"small": Plate("A caption with 1 < 2.", small_figure)}
    monkeypatch.setattr(command, "GALLERY", plates)
    monkeypatch.setattr(gallery, "GALLERY", plates)


def test_a_healthy_run_exits_0_and_prints_every_part(capsys):
    assert command.main(["--only", *LIGHT]) == 0
    shown = capsys.readouterr()
    for expected in (*LIGHT, "Section 6.3", "confirmed", "corrected", "73.226"):
        assert expected in shown.out
    assert "3 claims: 1 confirmed, 1 corrected, 1 not checkable here." in shown.out
    assert shown.err == ""


def test_a_verdict_not_as_recorded_exits_1_and_is_named(monkeypatch, capsys):
    monkeypatch.setattr(
        approximations,
        "expected_mloss",
        lambda *given, **options: 1.5 * theory.expected_mloss(*given, **options),
    )
    assert command.main(["--only", "expected-relu", "cost-of-one-layer"]) == 1
    shown = capsys.readouterr()
    assert "NOT AS RECORDED: expected-relu is recorded as corrected" in shown.err
    assert "cost-of-one-layer" not in shown.err


def test_an_unknown_id_exits_2_with_one_line(capsys):
    assert command.main(["--only", "expected-rely"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert "expected-relu" in shown.err


@pytest.mark.parametrize(
    "bad",
    [
        ["--seed", "-1"],
        ["--seed", "one"],
        ["--device", "cuda"],
        ["--dtype", "float32"],
        ["--nonsense"],
    ],
)
def test_bad_arguments_exit_2_with_one_line(bad, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(bad)
    assert stopped.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert bad[0] in shown.err


def test_the_device_and_dtype_that_there_are_may_be_named(capsys):
    given = ["--device", "cpu", "--dtype", "float64", "--only", LIGHT[0]]
    assert command.main(given) == 0
    assert "confirmed" in capsys.readouterr().out


def test_an_out_that_is_a_file_exits_2(tmp_path, capsys):
    occupied = tmp_path / "file"
    occupied.write_text("")
    assert command.main(["--out", str(occupied), "--only", *LIGHT]) == 2
    assert str(occupied) in capsys.readouterr().err


@pytest.mark.parametrize("taken", ["figures", "claims.json/", "figures/small.png/"])
def test_a_place_that_is_taken_exits_2_before_any_check(tmp_path, capsys, taken):
    path = tmp_path / taken
    path.parent.mkdir(exist_ok=True)
    if taken.endswith("/"):
        path.mkdir()
    else:
        path.touch()
    assert command.main(["--out", str(tmp_path), "--only", *LIGHT]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert str(path) in shown.err


def test_a_cache_that_is_a_file_exits_2_before_any_check(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLOSS_CACHE", str(tmp_path / "file" / "cache"))
    assert command.main(["--only", *LIGHT]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == (
        f"python -m paper_checks: {tmp_path / 'file'}: Not a directory\n"
    )


def test_a_disk_that_fills_exits_2_with_one_line(tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "write_outputs", full)
    assert command.main(["--out", str(tmp_path), "--only", LIGHT[0]]) == 2
    assert "output: No space left on device\n" in capsys.readouterr().err


def test_one_claim_is_counted_in_the_singular(capsys):
    assert command.main(["--only", LIGHT[0]]) == 0
    assert "1 claim: 1 confirmed." in capsys.readouterr().out


def test_json_is_the_records(capsys):
    assert command.main(["--json", "--only", *LIGHT]) == 0
    records = json.loads(capsys.readouterr().out)
    assert {record["id"] for record in records} == set(LIGHT)
    for record in records:
        assert isinstance(record.pop("how"), list)
        assert isinstance(record.pop("numbers"), dict)
        assert all(isinstance(value, str) for value in record.values())
        assert bool(record["truth"]) == (record["verdict"] in ("corrected", "refuted"))
        assert bool(record["reason"]) == (record["verdict"] == "not checkable here")


def test_out_holds_records_report_and_figures(tmp_path):
    out = tmp_path / "a" / "b"
    assert command.main(["--out", str(out), "--only", *LIGHT]) == 0
    written = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert written == {
        "claims.json",
        "report.html",
        "figures/small.png",
        "figures/small.svg",
    }
    assert len(json.loads((out / "claims.json").read_text())) == len(LIGHT)


def test_an_interrupted_run_leaves_the_earlier_files_whole(tmp_path, monkeypatch):
    assert command.main(["--out", str(tmp_path), "--only", *LIGHT]) == 0
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "drawn", interrupted)
    assert command.main(["--out", str(tmp_path), "--only", LIGHT[0]]) == 130
    after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert after == before


def test_no_file_is_named_before_all_are_whole(tmp_path, monkeypatch):
    write = Path.write_bytes

    def stopping(path, content):
        if path.name == "second":
            raise OSError("the disk is full")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", stopping)
    with pytest.raises(OSError, match="full"):
        outputs.write_outputs(tmp_path, {"first": b"1", "second": b"2"})
    assert list(tmp_path.iterdir()) == []


def test_the_report_stands_alone(tmp_path):
    command.main(["--out", str(tmp_path), "--only", *LIGHT, "--seed", "3"])
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    assert all(
        source.startswith("data:image/svg+xml;base64,")
        for source in re.findall(r'src="([^"]*)', page)
    )
    for expected in (*LIGHT, "A caption with 1 &lt; 2.", "73.226", "--seed 3", "torch"):
        assert expected in page
    targets = re.findall(r'href="#([^"]*)"', page)
    assert targets
    assert all(f'id="{target}"' in page for target in targets)


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["--help"])
    assert stopped.value.code == 0
    assert "example: python -m paper_checks --only" in capsys.readouterr().out

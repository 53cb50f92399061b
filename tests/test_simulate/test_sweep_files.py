import json
from importlib import import_module

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simulate.activations import relu
from simulate.results_file import journal_path
from simulate.sweep import sweep
from simulate.sweep_table import METADATA

KS = [0.5, 1.0, 2.0, 4.0]
MODULE = import_module("simulate.sweep")


def small(out, *, ks=KS, seed=0, **options):
    settings = {"n": 1024, "method": "mc", "workers": 1, **options}
    activations = settings.pop("activations", ["relu"])
    rng = np.random.default_rng(seed)
    return sweep(activations, ks, [1.0], rng=rng, out=out, **settings)


def numbers(table):
    return table.drop_columns(["seconds", "finished"]).to_pylist()


def rows_in(journal):
    entries = map(json.loads, journal.read_text().splitlines())
    return [entry["row"] for entry in entries if "row" in entry]


class Stopped(Exception):  # noqa: N818 - stands for a kill, and is no error
    """Stands for the power that fails."""


def stop_after(cells):
    def progress(done, total):
        del total
        if done == cells:
            raise Stopped

    return progress


@pytest.fixture
def out(tmp_path):
    return tmp_path / "made" / "sweep.parquet"


@pytest.fixture
def journal(out):
    """The journal of a sweep that stopped after two of its four cells."""
    with pytest.raises(Stopped):
        small(out, progress=stop_after(2))
    assert not out.exists()
    return journal_path(out)


def test_the_file_is_the_table_and_stands_alone(out):
    table = small(out)
    assert pq.read_table(out).equals(table, check_metadata=True)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_finished_file_is_returned_at_once(out, monkeypatch):
    first = small(out)
    before = out.stat()
    monkeypatch.setattr(MODULE, "completed", None)  # calling it would fail
    assert small(str(out)).equals(first, check_metadata=True)
    assert out.stat() == before
    assert small(out, ks=[2.0]).equals(first.slice(2, 1))


def test_a_finished_file_is_extended_by_new_cells_only(out):
    first = small(out, ks=[2.0, 1.0])
    table = small(out)
    assert table.slice(1, 2).to_pylist() == first.to_pylist()[::-1]
    assert numbers(table) == numbers(small(None))
    more = small(out, ks=[8.0])
    assert more["k"].to_pylist() == [8.0]
    assert pq.read_table(out).to_pylist() == more.to_pylist() + table.to_pylist()
    assert len(json.loads(pq.read_metadata(out).metadata[METADATA])["runs"]) == 3


def test_a_stopped_sweep_goes_on_where_it_was(out, journal):
    kept = rows_in(journal)
    seen = []
    table = small(out, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 4), (3, 4), (4, 4)]
    assert [row["k"] for row in kept] == KS[:2]
    finished = [when.isoformat() for when in table["finished"].to_pylist()]
    assert finished[:2] == [row["finished"] for row in kept]
    assert numbers(table) == numbers(small(None))
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    assert len(json.loads(table.schema.metadata[METADATA])["runs"]) == 2


def test_a_torn_last_line_is_redone(out, journal):
    content = journal.read_bytes()
    whole = content[: content.rindex(b"\n", 0, -1) + 1]
    for torn in range(len(whole) + 1, len(content), 40):
        journal.write_bytes(content[:torn])
        with pytest.raises(Stopped):
            small(out, progress=stop_after(1))
        assert journal.read_bytes() == whole
    assert numbers(small(out)) == numbers(small(None))


def test_a_torn_first_line_is_written_anew(out, journal):
    header = journal.read_bytes().splitlines()[0]
    for torn in (1, 5, len(header) // 2, len(header)):
        journal.write_bytes(header[:torn])
        assert numbers(small(out)) == numbers(small(None))
        out.unlink()


def test_a_stop_before_the_first_cell_binds_to_nothing(out):
    with pytest.raises(Stopped):
        small(out, progress=stop_after(0))
    assert not journal_path(out).exists()
    assert len(small(out, n=512)) == 4


def test_a_stop_between_table_and_journal_loses_nothing(out, journal):
    content = journal.read_bytes()
    table = small(out)
    journal.write_bytes(content)
    assert small(out).equals(table, check_metadata=True)
    assert not journal.exists()


def test_what_failed_leaves_what_was_finished(out):
    def broken(_):
        raise Stopped

    with pytest.raises(Stopped):
        small(out, activations={"relu": relu, "broken": broken})
    assert [row["k"] for row in rows_in(journal_path(out))] == KS
    assert numbers(small(out)) == numbers(small(None))


def test_a_line_that_is_not_a_journals_is_named(out, journal):
    lines = journal.read_bytes().splitlines(keepends=True)
    for damaged in (b"\x00\x00\n", b"7\n", b"{\n"):
        journal.write_bytes(b"".join([*lines[:2], damaged, *lines[2:]]))
        with pytest.raises(ValueError, match=r"sweep.parquet.journal, line 3, is not"):
            small(out)
    first, run, row = (json.loads(line) for line in lines[:3])
    for damaged in (
        {"run": {"day": 1}},
        {"row": {}},
        {"row": row["row"] | {"finished": "noon"}},
    ):
        entries = [first, run, damaged, row]
        journal.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
        with pytest.raises(ValueError, match=r"sweep.parquet.journal, line 3, is not"):
            small(out)
    journal.write_text("my notes")
    with pytest.raises(ValueError, match=r"line 1, is not .* move the file away"):
        small(out)
    assert journal.read_text() == "my notes"
    journal.write_text('{"my": "notes"}\n')
    with pytest.raises(ValueError, match="has format None"):
        small(out)
    assert journal.exists()


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"n": 2048}, "n is 1024 there and 2048 here"),
        ({"rtol": 0.1}, "rtol is None there and 0.1 here"),
        ({"method": "qmc"}, "method is mc there and qmc here"),
        ({"seed": 1}, "seed is 5f82c2d9cfeb0fa321d7d982f8bd1045 there"),
    ],
)
@pytest.mark.parametrize("state", ["finished", "stopped"])
def test_other_settings_are_refused_and_named(out, state, options, difference):
    if state == "finished":
        small(out)
    else:
        with pytest.raises(Stopped):
            small(out, progress=stop_after(2))
    with pytest.raises(ValueError, match=f"holds another sweep: {difference}"):
        small(out, **options)


@pytest.mark.usefixtures("journal")
def test_other_versions_are_refused_and_named(out, monkeypatch):
    here = MODULE.versions()
    monkeypatch.setattr(MODULE, "versions", lambda: here | {"numpy": "9.0"})
    with pytest.raises(ValueError, match=r"numpy is .* there and 9\.0 here"):
        small(out)


def test_another_format_is_refused(out, journal):
    content = journal.read_text()
    journal.write_text(content.replace('"format": 1', '"format": 2'))
    with pytest.raises(ValueError, match=r"journal has format 2 where .* has 1"):
        small(out)
    journal.write_text(content)
    table = small(out)
    metadata = table.schema.metadata[METADATA].replace(b'"format": 1', b'"format": 0')
    pq.write_table(table.replace_schema_metadata({METADATA: metadata}), out)
    with pytest.raises(ValueError, match=r"parquet has format 0 where .* has 1"):
        small(out)


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"PAR1"])
def test_what_is_not_parquet_is_refused_and_kept(out, content):
    out.parent.mkdir()
    out.write_bytes(content)
    with pytest.raises(ValueError, match="not a table that a sweep wrote"):
        small(out)
    assert out.read_bytes() == content


def test_a_truncated_table_is_refused(out):
    small(out)
    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a table that a sweep wrote"):
        small(out)


def test_another_table_is_refused(out):
    out.parent.mkdir()
    pq.write_table(pa.table({"k": [1.0]}), out)
    with pytest.raises(ValueError, match="not a table that a sweep wrote"):
        small(out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("runs"), "not a table that a sweep wrote"),
        (lambda m: m["runs"][0].pop("commit"), "not a table that a sweep wrote"),
        (lambda m: m.pop("settings"), "holds another sweep: seed is None there"),
        (lambda m: m["settings"].pop("versions"), "another sweep: mloss is None there"),
    ],
)
def test_metadata_that_are_not_a_sweeps_are_refused(out, change, message):
    table = small(out)
    metadata = json.loads(table.schema.metadata[METADATA])
    change(metadata)
    changed = table.replace_schema_metadata({METADATA: json.dumps(metadata)})
    pq.write_table(changed, out)
    with pytest.raises(ValueError, match=message):
        small(out)


def test_a_table_that_lacks_a_column_is_refused(out):
    pq.write_table(small(out).drop_columns(["value"]), out)
    with pytest.raises(ValueError, match="not a table that a sweep wrote"):
        small(out)


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(IsADirectoryError):
        small(tmp_path)


def test_a_disk_that_fills_while_the_table_is_written_loses_nothing(
    out, journal, monkeypatch
):
    def full(*_):
        raise OSError(28, "No space left on device")

    expected = numbers(small(None))
    table_module = import_module("simulate.sweep_table")
    with monkeypatch.context() as patch:
        patch.setattr(table_module.pq, "write_table", full)
        with pytest.raises(OSError, match="No space left"):
            small(out)
    assert not out.exists()
    assert len(rows_in(journal)) == 4
    monkeypatch.setattr(MODULE, "completed", None)  # calling it would fail
    assert numbers(small(out)) == expected

import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mloss.calibration import open_calibration
from mloss.commands import main
from mloss.commands.spelt_candidates import spelt
from mloss.compare import agreement, compare, read_head
from mloss.merging import merge

METHODS = "average,ties:density=0.2/0.5"


def arguments(
    family,
    *options,
    sources=("one", "two"),
    methods=METHODS,
    data=("texts.jsonl",),
):
    models = [str(family / name) for name in ("base", *sources)]
    given = [part for name in data for part in ("--data", str(family / name))]
    return [
        "compare",
        *models,
        *given,
        *("--methods", methods, "--samples", "12", "--batch", "5"),
        *options,
    ]


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Two heads with three classes for the 32 features of the small models."""
    folder, paths = tmp_path_factory.mktemp("heads"), []
    generator = torch.Generator().manual_seed(0)
    for name in ("one", "two"):
        paths.append(folder / f"{name}.safetensors")
        save_file({"weight": torch.randn(3, 32, generator=generator)}, paths[-1])
    return paths


def with_heads(heads):
    return [part for path in heads for part in ("--head", str(path))]


def record_of(capsys, *given):
    assert main([*given, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_record_is_what_the_library_finds(family, heads, capsys, tmp_path):
    other = tmp_path / "others.jsonl"
    other.write_bytes((family / "texts.jsonl").read_bytes())
    data = ("texts.jsonl", other)
    record = record_of(
        capsys, *arguments(family, *with_heads(heads), "--no-cache", data=data)
    )
    texts = open_calibration(family / "texts.jsonl", checkpoint=family / "base")
    batches = list(texts.batches(12, size=5))
    found = compare(
        family / "base",
        [family / "one", family / "two"],
        task_data=[batches, batches],
        methods=spelt(METHODS),
        heads=[read_head(path) for path in heads],
    )
    assert record["reads"] == "classes"
    assert [row["name"] for row in record["merges"]] == [o.name for o in found.outcomes]
    for row, one in zip(record["merges"], found.outcomes, strict=True):
        assert row["agreement"] == one.agreement.value
        assert row["divergence"] == one.divergence
        assert row["gap"]["relative"] == one.gap.relative
        assert [task["task"] for task in row["tasks"]] == ["one", "two"]
    merged = merge(family / "base", [family / "one", family / "two"], method="average")
    alone = agreement(merged.state, family / "one", batches, head=read_head(heads[0]))
    row = next(row for row in record["merges"] if row["name"] == "average")
    assert row["tasks"][0]["agreement"] == alone.rate.value


def test_a_table_says_what_it_shows_and_how_sure_it_is(family, capsys):
    given = arguments(family, "--merged", str(family / "one"))
    record = record_of(capsys, *given)
    assert main(given) == 0
    shown = capsys.readouterr()
    flat = " ".join(shown.out.split())
    assert "nearest neighbour among its task's samples" in flat
    assert "another promise than agreement" in flat
    assert "has not been measured" in flat
    for name in ("average", "ties:density=0.2", "ties:density=0.5"):
        assert name in flat
    level = [lead["over"] for lead in record["leads"] if not lead["separated"]]
    assert level
    more = "merge is" if len(level) == 1 else "merges are"
    assert (
        f"{record['merges'][0]['name']} leads, but {len(level)} more {more} within the "
        f"noise of 12 samples: {', '.join(level)}. "
    ) in flat
    assert not shown.err


def test_the_winner_is_written_as_merge_writes_it(family, tmp_path, heads, capsys):
    out, options = tmp_path / "best", with_heads(heads)
    record = record_of(
        capsys, *arguments(family, *options, "--select", "--out", str(out))
    )
    best = record["merges"][0]
    expected = merge(
        family / "base",
        [family / "one", family / "two"],
        method=best["method"],
        **best["options"],
    )
    written = load_file(out / "model.safetensors")
    assert all(torch.equal(written[key], expected.state[key]) for key in written)
    assert transformers.AutoModel.from_pretrained(out).config.hidden_size == 32
    assert json.loads((out / "comparison.json").read_text()) == record
    made = json.loads((out / "mloss.json").read_text())
    assert made["method"] == best["method"]
    assert made["options"].items() >= best["options"].items()
    assert made["gap"] == best["gap"]
    assert (out / "README.md").is_file()
    # It is held against itself, made elsewhere, and answers the same.
    again = record_of(
        capsys, *arguments(family, *options, "--merged", str(out), methods="average")
    )
    row = next(row for row in again["merges"] if row["name"] == f"merged:{out}")
    assert row["method"] is None
    assert {k: row[k] for k in ("agreement", "divergence", "gap")} == {
        k: best[k] for k in ("agreement", "divergence", "gap")
    }


def test_a_merge_that_is_there_can_be_selected(family, tmp_path, capsys):
    # It is the only source itself, and so agrees with it.
    out, options = tmp_path / "best", ("--merged", str(family / "one"))
    given = arguments(
        family, *options, sources=("one",), methods="task_arithmetic:scale=9"
    )
    record = record_of(capsys, *given, "--select", "--out", str(out))
    assert record["merges"][0]["agreement"] == 1
    written = load_file(out / "model.safetensors")
    one = load_file(family / "one" / "model.safetensors")
    assert all(torch.equal(written[key], one[key]) for key in one)
    made = json.loads((out / "mloss.json").read_text())
    assert made["method"] is None
    assert made["copied_from"] == str(family / "one")
    assert made["gap"] == record["merges"][0]["gap"]
    assert "A copy of the merge one" in (out / "README.md").read_text()


def test_a_merge_may_be_called_as_a_method_is(family, tmp_path, monkeypatch, capsys):
    shutil.copytree(family / "one", tmp_path / "average")
    monkeypatch.chdir(tmp_path)
    record = record_of(
        capsys, *arguments(family, "--merged", "average", methods="average")
    )
    names = {row["name"] for row in record["merges"]}
    assert names == {"average", "merged:average"}
    assert [lead["over"] for lead in record["leads"]] == [record["merges"][1]["name"]]


def test_the_same_file_twice_is_one_list_of_samples(
    family, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(family)
    (tmp_path / "link.jsonl").symlink_to(family / "texts.jsonl")
    once = record_of(capsys, *arguments(family, "--no-cache"))
    for twin in ("texts.jsonl", tmp_path / "link.jsonl"):
        given = arguments(family, "--no-cache", data=("texts.jsonl", twin))
        twice = record_of(capsys, *given)
        assert twice["samples"] == 12
        assert twice["leads"] == once["leads"]
        assert [row["interval"] for row in twice["merges"]] == [
            row["interval"] for row in once["merges"]
        ]


def test_some_tasks_cannot_share_their_samples(family, tmp_path, capsys):
    other = tmp_path / "others.jsonl"
    other.write_bytes((family / "texts.jsonl").read_bytes())
    given = arguments(
        family,
        sources=("one", "two", "three"),
        data=("texts.jsonl", "texts.jsonl", other),
    )
    assert main(given) == 2
    assert "a file of its own, or one for all" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_results_in_half_precision_are_kept(
    family, tmp_path, monkeypatch, capsys, dtype
):
    monkeypatch.setenv("MLOSS_CACHE", str(tmp_path))
    given = arguments(family, "--dtype", dtype, methods="average")
    first, again = record_of(capsys, *given), record_of(capsys, *given)
    assert again["merges"] == first["merges"]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_cache_that_takes_nothing_is_no_hindrance(
    family, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("MLOSS_CACHE", str(tmp_path / "file" / "cache"))
    record = record_of(capsys, *arguments(family))
    assert len(record["merges"]) == 3


def test_another_version_of_transformers_is_another_result(
    family, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("MLOSS_CACHE", str(tmp_path))
    record_of(capsys, *arguments(family, methods="average"))
    monkeypatch.setattr("mloss.compare.kept.version", lambda _: "0.0")
    record_of(capsys, *arguments(family, methods="average"))
    assert len(list(tmp_path.iterdir())) == 4


def test_results_are_kept_and_belong_to_their_models(
    family, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("MLOSS_CACHE", str(tmp_path))
    first = record_of(capsys, *arguments(family))
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    # The experts, and three merges.
    assert len(files) == 4
    again = record_of(capsys, *arguments(family))
    for record in (first, again):
        del record["made_from"]
    assert again == first
    assert {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == files
    record_of(capsys, *arguments(family, "--seed", "1"))
    assert len(list(tmp_path.iterdir())) == 8
    record_of(capsys, *arguments(family, "--no-cache", "--seed", "2"))
    assert len(list(tmp_path.iterdir())) == 8


def test_without_select_the_record_alone_is_written(family, tmp_path, capsys):
    out = tmp_path / "new" / "found"
    record = record_of(capsys, *arguments(family, "--out", str(out)))
    assert [path.name for path in out.iterdir()] == ["comparison.json"]
    assert json.loads((out / "comparison.json").read_text()) == record


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--select"], "--out must say where the selected merge goes"),
        (["--force"], "--force is for the merge that --select writes"),
        (["--methods", "nothing"], "method 'nothing' is not one of"),
        (["--methods", ""], "a method has no name"),
        (["--head", "absent"], "head absent does not exist"),
        (["--data", "a", "--data", "b"], "for each of the 2 sources"),
        (["--merged", "absent"], "absent"),
    ],
)
def test_bad_input_is_one_line(family, capsys, options, message):
    assert main(arguments(family, *options)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_what_is_there_is_not_overwritten(family, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    given = arguments(family, "--select", "--out", str(tmp_path))
    assert main(given) == 2
    assert "already holds files" in capsys.readouterr().err
    assert main([*given, "--force"]) == 2
    assert "no checkpoint to replace" in capsys.readouterr().err
    one = str(family / "one")
    assert main(arguments(family, "--select", "--force", "--out", one)) == 2
    assert f"--out {one} holds {one}" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--data", "--head", "--merged"])
def test_no_input_is_replaced(family, tmp_path, capsys, option):
    out = tmp_path / "earlier"
    shutil.copytree(family / "one", out)
    mine = out if option == "--merged" else out / "mine"
    if option != "--merged":
        mine.write_bytes((family / "texts.jsonl").read_bytes())
    given = arguments(family, "--select", "--force", "--out", str(out))
    assert main([*given, option, str(mine)]) == 2
    assert f"--out {out} holds {mine}" in capsys.readouterr().err


def test_what_a_killed_run_left_is_found_before_the_work(
    family, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "best"
    (tmp_path / ".best.unfinished" / "new").mkdir(parents=True)
    given = arguments(family, "--select", "--out", str(out))
    monkeypatch.setattr(
        "mloss.commands.compare_command.compare",
        lambda *_, **__: pytest.fail("it has begun"),
    )
    assert main(given) == 2
    error = capsys.readouterr().err
    assert "begun and not finished" in error
    assert "replace it with --force" in error
    assert "--resume" not in error
    monkeypatch.undo()
    assert main([*given, "--force"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_the_comparison_is_shown_though_writing_fails(
    family, tmp_path, monkeypatch, capsys
):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mloss.commands.compare_command.save_checkpoint", full)
    given = arguments(family, "--select", "--out", str(tmp_path / "best"))
    assert main(given) == 2
    shown = capsys.readouterr()
    assert "Agreement:" in shown.out
    assert "No space left" in shown.err

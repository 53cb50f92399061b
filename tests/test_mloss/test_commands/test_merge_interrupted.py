import errno
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mloss.checkpoints import safetensors_writing
from mloss.commands import main, merge_command, merge_plan
from mloss.merging.pruning.node_rates import NodeRates

KILLED = """
import os, signal, sys
from mloss.checkpoints import safetensors_writing as writing
from mloss.commands import main
whole, left = writing._stored_bytes, [12]
def until_killed(*given):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*given)
writing._stored_bytes = until_killed
main(sys.argv[1:])
"""


def arguments(family, out, *options, method="ties"):
    models = [str(family / name) for name in ("base", "one", "two")]
    shards = ["--max-shard-size", "20kB"]
    return ["merge", *models, "--method", method, "--out", str(out), *shards, *options]


def weights(out):
    return {file.name: file.read_bytes() for file in out.glob("model*")}


def contents(folder):
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder): file.read_bytes() for file in files}


@pytest.fixture
def stop_at(monkeypatch):
    """Let an error come in place of the tensor of a number."""

    def stop(number, error, patch=monkeypatch):
        whole, left = safetensors_writing._stored_bytes, [number]

        def stored(*given):
            left[0] -= 1
            if left[0] == 0:
                raise error
            return whole(*given)

        patch.setattr(safetensors_writing, "_stored_bytes", stored)

    return stop


@pytest.fixture(scope="module")
def uninterrupted(family, tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted") / "merged"
    assert main(arguments(family, out)) == 0
    assert len(weights(out)) > 3
    return weights(out)


@pytest.mark.parametrize("number", [1, 9, 25])
def test_ctrl_c_says_how_to_go_on_and_the_result_is_the_same(
    family, tmp_path, capsys, stop_at, monkeypatch, uninterrupted, number
):
    out = tmp_path / "merged"
    stop_at(number, KeyboardInterrupt())
    assert main(arguments(family, out)) == 130
    assert "go on with --resume" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [".merged.unfinished"]
    monkeypatch.undo()
    assert main(arguments(family, out)) == 2
    assert "begun and not finished" in capsys.readouterr().err
    assert main(arguments(family, out, "--resume")) == 0
    assert weights(out) == uninterrupted
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


def test_what_was_written_is_not_computed_again(
    family, tmp_path, stop_at, monkeypatch, uninterrupted
):
    out = tmp_path / "merged"
    stop_at(20, KeyboardInterrupt())
    main(arguments(family, out))
    monkeypatch.undo()
    whole, computed = safetensors_writing._stored_bytes, []

    def stored(name, entry):
        computed.append(name)
        return whole(name, entry)

    monkeypatch.setattr(safetensors_writing, "_stored_bytes", stored)
    assert main(arguments(family, out, "--resume")) == 0
    index = json.loads(uninterrupted["model.safetensors.index.json"])
    assert len(computed) == len(index["weight_map"]) - 19


def test_a_killed_merge_is_gone_on_with(family, tmp_path, uninterrupted):
    out = tmp_path / "merged"
    command = [sys.executable, "-c", KILLED, *arguments(family, out)]
    killed = subprocess.run(command, check=False, capture_output=True)  # noqa: S603  # its own words
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    assert main(arguments(family, out, "--resume")) == 0
    assert weights(out) == uninterrupted


@pytest.fixture
def own(family, tmp_path):
    """A family of its own, with a classifier and keep rates, to be changed."""
    folder = tmp_path / "own"
    shutil.copytree(family, folder)
    save_file({"weight": torch.ones(3, 32)}, folder / "head")
    layer = "encoder.layer.0.intermediate.dense.weight"
    nodes = len(load_file(folder / "base" / "model.safetensors")[layer])
    NodeRates({"up": (layer,)}, {"up": torch.full((nodes,), 0.5)}).save(
        folder / "rates"
    )
    return folder


def touched(name):
    """A change of a file that leaves its content as it was."""
    return lambda folder: os.utime(folder / name, ns=(1, 1))


TEXTS = ("--data", "texts.jsonl", "--samples", "4", "--batch", "2")
CHANGES = {
    "method": ("ties", (), ("--method", "average")),
    "option": ("ties", (), ("--density", "0.3"), "option of the method"),
    "file of an option": ("ties", ("--option", "rates=rates"), touched("rates")),
    "base": ("ties", (), touched("base/model.safetensors"), "base or source"),
    "source": ("ties", (), touched("two/model.safetensors"), "base or source"),
    "weights": ("ties", (), ("--weights", "0.25,0.75")),
    "seed": ("dare", (), ("--seed", "1")),
    "max-shard-size": ("ties", (), ("--max-shard-size", "21kB")),
    "quick-gelu": ("ties", (), ("--quick-gelu",)),
    "head": (
        "adamerging",
        (*TEXTS, *("--head", "head") * 2, "--option", "steps=1"),
        touched("head"),
    ),
    "data": ("m_ties", TEXTS, touched("texts.jsonl")),
    "samples": ("m_ties", TEXTS, ("--samples", "5"), "number of samples"),
    "batch": ("m_ties", TEXTS, ("--batch", "3"), "number of samples"),
    "processor": ("m_ties", TEXTS, ("--processor", "one")),
    "tokenizer": (
        "m_ties",
        (*TEXTS, "--processor", "three"),
        touched("three/tokenizer.json"),
        "processor",
    ),
}


@pytest.mark.parametrize("changed", CHANGES)
def test_another_merge_is_not_gone_on_with(
    own, tmp_path, capsys, stop_at, monkeypatch, changed
):
    method, options, change, *named = CHANGES[changed]
    out = tmp_path / "merged"
    monkeypatch.chdir(own)
    with monkeypatch.context() as patch:
        stop_at(9, KeyboardInterrupt(), patch)
        assert main(arguments(own, out, *options, method=method)) == 130
    kept = contents(tmp_path / ".merged.unfinished")
    if callable(change):
        change(own)
        change = ()
    capsys.readouterr()
    again = arguments(own, out, *options, *change, "--resume", method=method)
    assert main(again) == 2
    (said,) = named or [changed]
    assert f"begun with another {said}:" in capsys.readouterr().err
    assert contents(tmp_path / ".merged.unfinished") == kept
    assert main([*again, "--force"]) == 2


@pytest.mark.parametrize("library", ["mloss", "torch", "transformers"])
def test_another_version_does_not_go_on(
    family, tmp_path, capsys, stop_at, monkeypatch, library
):
    out = tmp_path / "merged"
    with monkeypatch.context() as patch:
        stop_at(9, KeyboardInterrupt(), patch)
        main(arguments(family, out))
    real = merge_plan.version_of
    monkeypatch.setattr(
        merge_plan, "version_of", lambda name: "0" if name == library else real(name)
    )
    assert main(arguments(family, out, "--resume")) == 2
    assert f"begun with another version of {library}" in capsys.readouterr().err


def test_begun_again_by_force(family, tmp_path, stop_at, monkeypatch):
    out = tmp_path / "merged"
    with monkeypatch.context() as patch:
        stop_at(9, KeyboardInterrupt(), patch)
        main(arguments(family, out))
    assert main(arguments(family, out, "--force", method="average")) == 0
    assert json.loads((out / "mloss.json").read_text())["method"] == "average"


@pytest.mark.parametrize("options", [["--resume"], ["--force"], []])
def test_a_second_run_leaves_the_first_alone(
    family, tmp_path, capsys, monkeypatch, uninterrupted, options
):
    out = tmp_path / "merged"
    whole, statuses = safetensors_writing._stored_bytes, []

    def meanwhile(name, entry):
        if not statuses:
            statuses.append(None)
            statuses[0] = main(arguments(family, out, *options))
        return whole(name, entry)

    monkeypatch.setattr(safetensors_writing, "_stored_bytes", meanwhile)
    assert main(arguments(family, out)) == 0
    assert statuses == [2]
    said = capsys.readouterr().err
    assert "another run is writing" in said
    assert said.count("\n") == 1
    assert weights(out) == uninterrupted


def test_data_that_cannot_be_used_is_found_before_anything_is_written(
    family, tmp_path, capsys, monkeypatch
):
    words = [f"word{i}" for i in range(200)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(
        tmp_path / "other"
    )
    (tmp_path / "texts.txt").write_text("word199\n")
    read = []
    monkeypatch.setattr(safetensors_writing, "_stored_bytes", lambda *_: read.append(1))
    samples = ["--data", str(tmp_path / "texts.txt"), "--samples", "1"]
    samples += ["--processor", str(tmp_path / "other")]
    assert main(arguments(family, tmp_path / "merged", *samples)) == 2
    assert "--processor must name the model's own tokenizer" in capsys.readouterr().err
    assert read == []


def test_a_gap_that_cannot_be_measured_leaves_the_weights(
    family, tmp_path, capsys, monkeypatch, uninterrupted
):
    def fail(*_, **__):
        raise ValueError("no gap")

    out = tmp_path / "merged"
    texts = ["--data", str(family / "texts.jsonl"), "--samples", "4"]
    with monkeypatch.context() as patch:
        patch.setattr(merge_command, "gap", fail)
        assert main(arguments(family, out, *texts)) == 2
    said = capsys.readouterr().err
    assert "no gap; the merged weights stay: go on with --resume" in said
    assert said.count("\n") == 1
    with monkeypatch.context() as patch:
        patch.setattr(safetensors_writing, "_stored_bytes", fail)
        assert main(arguments(family, out, "--resume")) == 0
    assert weights(out) == uninterrupted


def test_on_a_full_disk_the_old_output_stays(
    family, tmp_path, capsys, stop_at, monkeypatch, uninterrupted
):
    out = tmp_path / "merged"
    assert main(arguments(family, out, method="average")) == 0
    before = weights(out)
    stop_at(9, OSError(errno.ENOSPC, "No space left on device"))
    capsys.readouterr()
    assert main(arguments(family, out, "--force")) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert ".merged.unfinished: No space left on device; what is written" in said
    assert weights(out) == before
    monkeypatch.undo()
    assert main(arguments(family, out, "--force", "--resume")) == 0
    assert weights(out) == uninterrupted


def test_a_run_that_may_resume_may_also_begin(family, tmp_path, uninterrupted):
    assert main(arguments(family, tmp_path / "merged", "--resume")) == 0
    assert weights(tmp_path / "merged") == uninterrupted

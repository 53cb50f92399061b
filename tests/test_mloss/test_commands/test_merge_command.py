import json

import pytest
import torch
import transformers
from safetensors.torch import load_file

from mloss import gap
from mloss.calibration import open_calibration
from mloss.checkpoints import open_checkpoint
from mloss.commands import main
from mloss.merging import METHODS


def arguments(family, out, *options, method="average"):
    models = [str(family / name) for name in ("base", "one", "two")]
    return ["merge", *models, "--method", method, "--out", str(out), *options]


def test_an_average_that_transformers_loads(family, tmp_path, capsys):
    out = tmp_path / "merged"
    assert main(arguments(family, out, "--weights", "0.25,0.75")) == 0
    assert capsys.readouterr().out == f"{out}: merged by average\n"
    merged = transformers.AutoModel.from_pretrained(out).state_dict()
    one, two = (
        load_file(family / name / "model.safetensors") for name in ("one", "two")
    )
    for key, value in one.items():
        mean = (0.25 * value.double() + 0.75 * two[key].double()).float()
        assert torch.equal(merged[key], mean)
    assert transformers.AutoTokenizer.from_pretrained(out)("red cat")["input_ids"]


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_is_written_with_its_measured_gap(
    family, tmp_path, capsys, method
):
    out, texts = tmp_path / "merged", family / "texts.jsonl"
    options = ["--data", str(texts), "--samples", "8", "--batch", "5", "--json"]
    assert main(arguments(family, out, *options, method=method)) == 0
    record = json.loads(capsys.readouterr().out)
    assert json.loads((out / "mloss.json").read_text()) == record
    assert record["method"] == method
    data = open_calibration(texts, checkpoint=family / "base").batches(8, size=5)
    measured = gap(out, [family / "one", family / "two"], data)
    # The directory holds what was measured before it was written.
    assert record["gap"]["mean"] == measured.mean
    assert record["gap"]["samples"] == 8


def test_the_seed_decides_what_is_random(family, tmp_path):
    def written(name, seed):
        out = tmp_path / name
        assert main(arguments(family, out, "--seed", str(seed), method="dare")) == 0
        return (out / "model.safetensors").read_bytes()

    first = written("first", 3)
    assert written("again", 3) == first
    assert written("other", 4) != first


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("m_ties", [], "--data must be given: m_ties looks at samples"),
        ("average", ["--density", "0.2"], "average has no option --density"),
        ("ties", ["--density", "2"], "density must be"),
        ("ties", ["--weights", "1"], "one number for each of the 2 source models"),
        ("ties", ["--data", "absent.txt"], "data absent.txt does not exist"),
        ("nonsense", [], "invalid choice"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    family, tmp_path, capsys, method, options, message
):
    out = tmp_path / "merged"
    try:
        status = main(arguments(family, out, *options, method=method))
    except SystemExit as leaving:
        status = leaving.code
    printed = capsys.readouterr()
    assert status == 2
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert list(tmp_path.iterdir()) == []


def test_only_a_checkpoint_is_replaced_and_only_by_force(family, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    for force in ([], ["--force"]):
        assert main(arguments(family, tmp_path, *force)) == 2
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert "no checkpoint to replace" in capsys.readouterr().err
    out = tmp_path / "merged"
    assert main(arguments(family, out)) == 0
    assert main(arguments(family, out)) == 2
    assert "already holds files" in capsys.readouterr().err
    assert main(arguments(family, out, "--force", method="ties")) == 0
    assert json.loads((out / "mloss.json").read_text())["method"] == "ties"


@pytest.mark.parametrize("place", ["one", "."])
def test_an_input_is_never_replaced(family, capsys, place):
    assert main(arguments(family, family / place, "--force")) == 2
    assert "give another directory" in capsys.readouterr().err
    assert open_checkpoint(family / "one").config is not None


def test_the_gap_is_that_of_what_is_written_in_half_precision(family, tmp_path, capsys):
    base = transformers.AutoModel.from_pretrained(family / "base")
    tokenizer = transformers.AutoTokenizer.from_pretrained(family / "base")
    for part in (base.bfloat16(), tokenizer):
        part.save_pretrained(tmp_path / "base")
    sources = [str(family / name) for name in ("one", "two")]
    texts, out = family / "texts.jsonl", tmp_path / "merged"
    command = ["merge", str(tmp_path / "base"), *sources, "--method", "average"]
    options = ["--data", str(texts), "--samples", "8", "--out", str(out), "--json"]
    assert main([*command, *options]) == 0
    record = json.loads(capsys.readouterr().out)
    data = open_calibration(texts, checkpoint=family / "base").batches(8)
    assert gap(out, sources, data).mean == record["gap"]["mean"]


def test_a_base_without_configuration_gets_a_source_s(family, tmp_path):
    state = tmp_path / "base.safetensors"
    state.write_bytes((family / "base" / "model.safetensors").read_bytes())
    sources = [str(family / name) for name in ("one", "two")]
    out = str(tmp_path / "merged")
    assert main(["merge", str(state), *sources, "--method", "ties", "--out", out]) == 0
    assert transformers.AutoModel.from_pretrained(out).config.model_type == "bert"
    assert transformers.AutoTokenizer.from_pretrained(out)("red cat")["input_ids"]


def test_a_missing_model_is_named(tmp_path, capsys):
    absent = str(tmp_path / "absent")
    assert main(["merge", absent, absent, "--method", "ties", "--out", "x"]) == 2
    assert capsys.readouterr().err == f"mloss merge: {absent} does not exist\n"

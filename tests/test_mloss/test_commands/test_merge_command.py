import json
import math
import shutil
from collections import Counter

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mloss import gap
from mloss.calibration import open_calibration
from mloss.checkpoints import open_checkpoint, safetensors_file
from mloss.commands import main
from mloss.merging import METHODS
from mloss.merging.pruning.node_rates import NodeRates


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
    if METHODS[method].reads_heads:
        weight = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
        save_file({"weight": weight}, tmp_path / "head")
        options += ["--head", str(tmp_path / "head")] * 2
    if "steps" in METHODS[method].options:
        options += ["--option", "steps=2"]
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
        ("average", ["--density", "0.2"], "average has no option density"),
        ("ties", ["--density", "2"], "density must be"),
        ("ties", ["--weights", "1"], "one number for each of the 2 source models"),
        ("ties", ["--data", "absent.txt"], "data absent.txt does not exist"),
        ("ties", ["--head", "head"], "ties does not look at classes: give no --head"),
        ("nonsense", [], "invalid choice"),
        ("dare", ["--seed", "9" * 20], "--seed: must have at most 18 digits"),
        ("lines", ["--option", "of_options=x"], "lines has no option of_options"),
        (
            "ties",
            ["--option", "rates="],
            "must be a file of keep rates or none, got ''",
        ),
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


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("average", ("--data", "merged/texts.jsonl")),
        ("average", ("--data", "merged/link.jsonl")),
        ("average", ("--data", "texts.jsonl", "--processor", "merged/three")),
        ("adamerging", ("--data", "texts.jsonl", *("--head", "merged/head") * 2)),
        ("ties", ("--option", "rates=merged/rates")),
        ("ties", ("--option", "rates=link")),
    ],
)
def test_no_other_input_is_replaced_either(
    family, tmp_path, capsys, monkeypatch, method, options
):
    shutil.copytree(family, tmp_path, dirs_exist_ok=True)
    shutil.copytree(family, tmp_path / "merged")
    rates = NodeRates({}, {})
    rates.save(tmp_path / "merged" / "rates")
    save_file({"weight": torch.ones(3, 32)}, tmp_path / "merged" / "head")
    (tmp_path / "merged" / "mloss.json").write_text("{}")
    (tmp_path / "link").symlink_to("merged/rates")
    (tmp_path / "merged" / "link.jsonl").symlink_to("../texts.jsonl")
    monkeypatch.chdir(tmp_path)
    command = arguments(tmp_path, "merged", *options, "--force", method=method)
    assert main(command) == 2
    said = capsys.readouterr().err
    assert f"--out merged holds {options[-1].removeprefix('rates=')}: give" in said
    assert (tmp_path / "merged" / "texts.jsonl").exists()


def test_a_model_whose_files_are_links_is_no_output(family, tmp_path, capsys):
    for name in ("base", "one", "two"):
        shutil.copytree(family / name, tmp_path / name)
    linked = tmp_path / "one" / "model.safetensors"
    linked.rename(tmp_path / "elsewhere")
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").rename(tmp_path / "out" / "model.safetensors")
    linked.symlink_to(tmp_path / "out" / "model.safetensors")
    assert main(arguments(tmp_path, tmp_path / "out", "--force")) == 2
    assert f"holds {linked}: give another directory" in capsys.readouterr().err
    assert linked.exists()


@pytest.mark.parametrize("place", [".", "/"])
def test_the_current_directory_is_no_output(
    family, tmp_path, capsys, monkeypatch, place
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments(family, place)) == 2
    said = capsys.readouterr().err
    assert f"merge: {place} is or holds the current directory" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", [False, True])
def test_an_output_may_be_a_link(family, tmp_path, there):
    (tmp_path / "far").mkdir()
    target = tmp_path / "far" / "target"
    (tmp_path / "link").symlink_to(target)
    if there:
        target.mkdir()
    assert main(arguments(family, tmp_path / "link")) == 0
    assert open_checkpoint(target).config is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["far", "link"]
    assert [path.name for path in target.parent.iterdir()] == ["target"]


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


def variant(family, folder, change):
    """A copy of source "one" with its weights changed."""
    shutil.copytree(family / "one", folder)
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


NAME = "encoder.layer.1.output.dense.weight"


@pytest.mark.parametrize("method", ["average", "task_arithmetic", "ties"])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_source_that_is_not_finite_is_named_and_leaves_nothing(
    family, tmp_path, capsys, method, number
):
    def spoil(state):
        state[NAME][3, 5] = number

    bad = variant(family, tmp_path / "bad", spoil)
    models = [str(family / "base"), str(family / "one"), bad]
    out = str(tmp_path / "merged")
    assert main(["merge", *models, "--method", method, "--out", out]) == 2
    said = capsys.readouterr().err
    assert f"{NAME!r} of {bad} holds 1 values that are not finite" in said
    assert "the first at [3, 5]" in said
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


def test_a_source_equal_to_the_base_is_merged_and_noted(family, tmp_path, capsys):
    base, one = str(family / "base"), str(family / "one")
    out = str(tmp_path / "merged")
    assert main(["merge", base, base, one, "--method", "ties", "--out", out]) == 0
    said = capsys.readouterr().err
    assert said.startswith(f"mloss merge: {base} is equal to the base")
    assert said.count("\n") == 1


def test_a_source_of_another_base_is_noted(family, tmp_path, capsys):
    def shuffle(state):
        generator = torch.Generator().manual_seed(0)
        for name, value in state.items():
            order = torch.randperm(value.numel(), generator=generator)
            state[name] = value.flatten()[order].view(value.shape)

    other = variant(family, tmp_path / "other", shuffle)
    models = [str(family / "base"), str(family / "one"), other]
    out = str(tmp_path / "merged")
    assert main(["merge", *models, "--method", "average", "--out", out]) == 0
    said = capsys.readouterr().err
    assert said.startswith(f"mloss merge: {other} is ")
    assert "it does not seem to be fine-tuned from it" in said
    assert said.count("\n") == 1


def test_every_tensor_of_a_source_is_read_once(family, tmp_path, monkeypatch):
    reads = Counter()
    mapped = safetensors_file._mapped

    def counted(path, first, *others):
        reads[path.parent.name, first] += 1
        return mapped(path, first, *others)

    monkeypatch.setattr(safetensors_file, "_mapped", counted)
    assert main(arguments(family, tmp_path / "merged")) == 0
    tensors = len(load_file(family / "one" / "model.safetensors"))
    sources = [count for (name, _), count in reads.items() if name in ("one", "two")]
    assert sources == [1] * (2 * tensors)


def test_a_merge_beyond_the_range_of_its_numbers_is_refused(family, tmp_path, capsys):
    options = ["--scale", "1e45"]
    out = tmp_path / "merged"
    assert main(arguments(family, out, *options, method="task_arithmetic")) == 2
    assert "values that torch.float32 cannot hold" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("size", "files"), [("20kB", 5), ("1GB", 1)])
def test_files_are_as_large_as_asked(family, tmp_path, size, files):
    out = tmp_path / "merged"
    assert main(arguments(family, out, "--max-shard-size", size)) == 0
    shards = list(out.glob("*.safetensors"))
    assert len(shards) == files
    merged = transformers.AutoModel.from_pretrained(out).state_dict()
    one, two = (
        load_file(family / name / "model.safetensors") for name in ("one", "two")
    )
    for key, value in one.items():
        assert torch.equal(merged[key], (value.double() / 2 + two[key] / 2).float())


def test_samples_of_each_source_or_one_for_all(family, tmp_path, capsys):
    texts = ["--data", str(family / "texts.jsonl"), "--samples", "4"]
    again = ["--data", str(family / "texts.jsonl")]
    for number, status in ((0, 0), (1, 0), (2, 2)):
        out = tmp_path / f"merged-{number}"
        command = arguments(family, out, *texts, *again * number, method="regmean")
        assert main(command) == status
    said = capsys.readouterr().err
    assert "once for each of the 2 sources in their order, got 3" in said


def test_the_card_says_what_it_is_made_from(family, tmp_path, capsys):
    out = tmp_path / "merged"
    data = ["--data", str(family / "texts.jsonl"), "--samples", "4"]
    options = ["--weights", "0.25,0.75", "--density", "0.3", *data]
    assert main(arguments(family, out, *options, method="ties")) == 0
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\ntags:\n- merge\n- mloss\n")
    for part in ("Yadav et al. 2023", "| one | 0.25 |", "| density | 0.3 |"):
        assert part in card
    relative = capsys.readouterr().out.partition("outputs are ")[2].partition(" of")[0]
    assert f"Its outputs are {relative} of the ensemble's size away" in card
    assert str(family) not in card


def test_card_and_record_have_the_mloss_that_guided_the_merge(family, tmp_path):
    out = tmp_path / "merged"
    data = ["--data", str(family / "texts.jsonl"), "--samples", "4"]
    assert main(arguments(family, out, *data, method="m_ties")) == 0
    layers = json.loads((out / "mloss.json").read_text())["mean_node_mloss"]
    assert layers
    assert all(mean > 0 for mean in layers.values())
    card = (out / "README.md").read_text()
    assert "| layer | mean node M-Loss |" in card
    assert all(f"| {name} | {mean:.3g} |" in card for name, mean in layers.items())


@pytest.mark.parametrize("method", ["average", "ties"])
@pytest.mark.parametrize(
    "dtypes",
    [
        (torch.bfloat16, torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, torch.float32, torch.float16),
    ],
)
def test_halves_are_merged_in_float64_and_rounded_once(
    family, tmp_path, method, dtypes
):
    states = []
    for name, dtype in zip(("base", "one", "two"), dtypes, strict=True):
        shutil.copytree(family / name, tmp_path / name)
        file = tmp_path / name / "model.safetensors"
        state = {key: value.to(dtype) for key, value in load_file(file).items()}
        save_file(state, file, metadata={"format": "pt"})
        states.append({key: value.double() for key, value in state.items()})
    assert main(arguments(tmp_path, tmp_path / "merged", method=method)) == 0
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    exact = METHODS[method].lazily(states[0], states[1:])
    # What is as wide as float32 somewhere is rounded to that before it is written.
    widest = torch.float32 if torch.float32 in dtypes else torch.bfloat16
    for key, value in merged.items():
        assert torch.equal(value, exact[key].to(widest).bfloat16())

import copy
import json
import sys
from importlib.metadata import entry_points

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from checkpoint_models import small_bert, small_clip
from PIL import Image
from safetensors.torch import load_file, save_file

from mloss import score
from mloss.calibration import open_calibration
from mloss.commands import main
from mloss.commands.kept_rates import RATES
from mloss.merging.pruning.keep_rates import keep_rates
from mloss.merging.pruning.node_rates import NodeRates


def models(family, *names):
    return [str(family / name) for name in ("base", *names)]


def with_texts(family, *options, sources=("one", "two")):
    data = ["--data", str(family / "texts.jsonl"), "--samples", "16", *options]
    return ["score", *models(family, *sources), *data]


def test_it_is_the_score_of_the_library(family, capsys):
    assert main(with_texts(family, "--json")) == 0
    record = json.loads(capsys.readouterr().out)
    data = open_calibration(family / "texts.jsonl", checkpoint=family / "base")
    base, *sources = models(family, "one", "two")
    expected = score(base, sources, data.batches(16))
    assert record["samples"] == 16
    for row, site in zip(record["layers"], expected.sites, strict=True):
        assert row["layer"] == site.layer_name
        assert row["mloss"] == site.layer
    assert record["gap"]["mean"] > 0
    assert record["provenance"]["base"] == base


def test_everything_is_written(family, tmp_path, capsys):
    out = tmp_path / "new" / "score"
    assert main(with_texts(family, "--out", str(out))) == 0
    printed = capsys.readouterr().out
    record = json.loads((out / "score.json").read_text())
    assert f"Verdict: {record['verdict']['level']}" in printed
    assert all(len(line) <= 100 for line in printed.splitlines())
    table = pq.read_table(out / "nodes.parquet")
    assert len(table) == sum(row["nodes"] for row in record["layers"])
    page = (out / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert sorted(path.name for path in out.iterdir()) == [
        "heat_map.png",
        "heat_map.svg",
        "keep_rates.safetensors",
        "nodes.parquet",
        "report.html",
        "score.json",
    ]


def test_keep_rates_of_the_nodes_are_written(family, tmp_path):
    rates = ["--density", "0.6", "--spread", "0.5"]
    assert main(with_texts(family, "--out", str(tmp_path), *rates)) == 0
    written = NodeRates.load(tmp_path / RATES)
    stored = load_file(family / "base" / "model.safetensors")
    base, *sources = models(family, "one", "two")
    data = open_calibration(family / "texts.jsonl", checkpoint=family / "base")
    for site in score(base, sources, data.batches(16)).sites:
        expected = keep_rates(site.node, density=0.6, spread=0.5)
        assert torch.equal(written.rates[site.layer_name], expected)
        for key in written.layers[site.layer_name]:
            assert len(stored[key]) == len(expected)
    assert written.layers["pooler.dense"] == (
        "pooler.dense.weight",
        "pooler.dense.bias",
    )


def test_rates_go_by_the_names_on_disk(clips, tmp_path):
    data = ["--data", str(clips / "images"), "--out", str(tmp_path / "out")]
    assert main(["score", *models(clips, "one"), *data]) == 0
    stored = load_file(clips / "base" / "model.safetensors")
    for layer, keys in NodeRates.load(tmp_path / "out" / RATES).layers.items():
        assert [key.removeprefix(layer) for key in keys] == [".weight", ".bias"]
        assert set(keys) <= set(stored)


def test_what_runs_together_changes_no_score(family, capsys):
    def layers(*options):
        assert main(with_texts(family, "--json", "--batch", "4", *options)) == 0
        return [r["mloss"] for r in json.loads(capsys.readouterr().out)["layers"]]

    assert layers("--together", "4") == pytest.approx(layers(), rel=1e-12)


def test_more_samples_until_the_error_is_small(family, capsys):
    def samples(until):
        assert main(with_texts(family, "--until", until, "--json", "--batch", "4")) == 0
        return json.loads(capsys.readouterr().out)["samples"]

    # Any error is below the first, none of 40 samples below the second.
    assert samples("10") == 16
    assert samples("1e-9") == 40
    assert main(with_texts(family, "--until", "1e-9")) == 0
    assert "the data ended at 40 samples" in capsys.readouterr().err


def test_without_data_the_weights_foretell(family, capsys):
    arguments = ["score", *models(family, "one", "two")]
    assert main([*arguments, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert all(row["mean_node_mloss"] > 0 for row in record["layers"][:2])
    assert record["made_from"]["options"] == {"quick-gelu": None, "worst": 10}
    assert main(arguments) == 0
    assert "Give --data to measure" in capsys.readouterr().out


@pytest.fixture
def clips(tmp_path):
    """A whole CLIP, a tuned one, and a folder of images, one of them broken."""
    base = small_clip()
    processor = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    for name in ("base", "one"):
        base.save_pretrained(tmp_path / name)
        processor.save_pretrained(tmp_path / name)
        base = copy.deepcopy(base)
        for parameter in base.parameters():
            parameter.data += 0.01 * torch.randn_like(parameter)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 40, 32, 3), dtype=np.uint8)
    folder = tmp_path / "images"
    folder.mkdir()
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index}.png")
    (folder / "broken.png").write_bytes(b"not an image")
    return tmp_path


def test_images_that_do_not_decode_are_counted_and_named(clips, capsys):
    arguments = ["score", *models(clips, "one"), "--data", str(clips / "images")]
    assert main([*arguments, "--json"]) == 0
    printed = capsys.readouterr()
    record = json.loads(printed.out)
    assert record["samples"] == 6
    assert len(record["provenance"]["skipped"]) == 1
    assert "broken.png" in printed.err
    assert all("vision_model" in row["layer"] for row in record["layers"])


def test_a_processor_may_lie_elsewhere(clips, tmp_path, capsys):
    state = tmp_path / "one.safetensors"
    state.write_bytes((clips / "one" / "model.safetensors").read_bytes())
    data = ["--data", str(clips / "images"), "--json"]
    assert main(["score", str(clips / "base"), str(state), *data]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 6
    bare = tmp_path / "bare"
    transformers.CLIPModel.from_pretrained(clips / "base").save_pretrained(bare)
    arguments = ["score", str(bare), str(state), *data]
    assert main(arguments) == 2
    assert "preprocessor_config.json" in capsys.readouterr().err
    assert main([*arguments, "--processor", str(clips / "base")]) == 0


def damaged(family, tmp_path, change):
    """A source of which one file is changed."""
    path = tmp_path / "damaged.safetensors"
    path.write_bytes((family / "one" / "model.safetensors").read_bytes())
    change(path)
    return str(path)


def with_nan(path):
    state = load_file(path)
    state["encoder.layer.1.output.dense.weight"][3, 5] = float("nan")
    save_file(state, path)


def without_a_key(path):
    state = load_file(path)
    del state["encoder.layer.1.output.dense.weight"]
    save_file(state, path)


def narrower(path):
    state = load_file(path)
    name = "encoder.layer.1.output.dense.weight"
    state[name] = state[name][:-1].clone()
    save_file(state, path)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (with_nan, ["'encoder.layer.1.output.dense.weight'", "[3, 5]", "nan"]),
        (without_a_key, ["lacks 'encoder.layer.1.output.dense.weight'"]),
        (narrower, ["[31, 48]", "[32, 48]"]),
        (cut, ["damaged.safetensors"]),
    ],
)
def test_damaged_sources(family, tmp_path, capsys, change, messages):
    source = damaged(family, tmp_path, change)
    data = ["--data", str(family / "texts.jsonl"), "--out", str(tmp_path / "out")]
    assert main(["score", *models(family), source, *data]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(message in error for message in messages), error
    assert not (tmp_path / "out").exists()


class Hostile:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (self.target, "w"))


def test_nothing_in_a_pickle_is_run(family, tmp_path, capsys):
    touched = tmp_path / "touched"
    torch.save(
        {"weight": torch.ones(2), "other": Hostile(str(touched))}, tmp_path / "x.pt"
    )
    assert main(["score", *models(family), str(tmp_path / "x.pt")]) == 2
    assert not touched.exists()
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--samples", "0"], "must be a whole number >= 1"),
        (["--until", "-1"], "until must be"),
        (["--weights", "0.5,0.6"], "weights must sum to 1"),
        (["--weights", "a"], "must be numbers with commas between"),
        (["--device", "nowhere"], "'nowhere' is not here"),
        (["--data", "images/"], "does not exist"),
        (["--density", "2"], "density must be a fraction"),
        (["--spread", "0.3"], "spread must be in [0, density]"),
    ],
)
def test_bad_options_are_one_line(family, capsys, options, message):
    try:
        status = main(with_texts(family, *options))
    except SystemExit as leaving:
        status = leaving.code
    error = capsys.readouterr().err
    assert status == 2
    assert message in error
    assert error.count("\n") == 1


def test_images_are_not_for_a_model_of_texts(family, clips, capsys):
    arguments = ["score", *models(family, "one"), "--data", str(clips / "images")]
    assert main([*arguments, "--processor", str(clips / "base")]) == 2
    assert "the model of" in capsys.readouterr().err


def test_a_tokenizer_with_more_words_than_the_model(family, tmp_path, capsys):
    small_bert(vocab_size=10).save_pretrained(tmp_path)
    data = ["--data", str(family / "texts.jsonl"), "--processor", str(family / "base")]
    assert main(["score", str(tmp_path), str(tmp_path), *data]) == 2
    error = capsys.readouterr().err
    assert "the model knows 10 words" in error
    assert error.count("\n") == 1


def test_a_decoder_that_needs_inputs_of_its_own(family, tmp_path, capsys):
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
    t5 = transformers.T5Model(transformers.T5Config(vocab_size=50, **sizes))
    t5.save_pretrained(tmp_path)
    data = ["--data", str(family / "texts.jsonl"), "--processor", str(family / "base")]
    assert main(["score", str(tmp_path), str(tmp_path), *data]) == 2
    error = capsys.readouterr().err
    assert "an encoder with a decoder, which needs inputs of its own" in error
    assert error.count("\n") == 1


def test_an_interrupt_while_libraries_are_read(monkeypatch, capsys):
    class Interrupting:
        def find_spec(self, name, *_):
            if name == "mloss.commands.program":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "mloss.commands.program", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    assert main(["score"]) == 130
    assert capsys.readouterr().err == "mloss: interrupted\n"


@pytest.mark.parametrize("command", [[], ["score"], ["merge"], ["rank"]])
def test_help_has_an_example(capsys, command):
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--help"])
    assert f"example: {' '.join(['mloss', *command])}" in capsys.readouterr().out


def test_the_program_is_installed():
    (program,) = entry_points(group="console_scripts", name="mloss")
    assert program.load() is main


def test_another_precision_is_near(family, capsys):
    def layers(*options):
        assert main(with_texts(family, *options, "--json")) == 0
        rows = json.loads(capsys.readouterr().out)["layers"]
        return [row["mloss"] for row in rows]

    single, double = layers(), layers("--dtype", "float64")
    assert single != double
    # Differences of pre-activations of order one, each off by a few roundings.
    assert double == pytest.approx(single, rel=1e-3)
    assert main(with_texts(family, "--dtype", "bfloat16")) == 0


def test_the_gap_is_explained_and_what_is_beyond_activations_shown(
    family, tmp_path, capsys
):
    options = ["--beyond", "--explain", "2", "--out", str(tmp_path)]
    assert main(with_texts(family, *options)) == 0
    printed = capsys.readouterr().out
    record = json.loads((tmp_path / "score.json").read_text())
    page = (tmp_path / "report.html").read_text()
    assert "interaction between groups" in record["explanation"]
    for title in ("Attention", "Normalisations", "Gap of the hidden states"):
        assert title in printed
        assert title in page
    beyond = record["beyond_activations"]
    assert [len(one["head"]) for one in beyond["attention"]["modules"]] == [4, 4]
    for block in beyond["stream"]["blocks"]:
        shares = [block[f"{part}_share"] for part in ("carried", "within", "cross")]
        assert sum(shares) == pytest.approx(1, rel=1e-9)
    # Behind the last block stands what the model gives out: the measured gap, here a
    # mean over tokens of norms, there the norm of all tokens together.
    assert beyond["stream"]["blocks"][-1]["gap"] < record["gap"]["mean"]


def test_what_cannot_be_measured_besides_costs_nothing_else(family, capsys):
    assert main(with_texts(family, "--explain", "2", "--json", sources=["one"])) == 0
    printed = capsys.readouterr()
    record = json.loads(printed.out)
    assert record["explanation"] is None
    assert record["layers"]
    assert "mloss score: no --explain: sources must hold at least two" in printed.err


@pytest.mark.parametrize(
    "option", ["--beyond", "--until=0.1", "--explain", "--processor=x"]
)
def test_options_that_need_samples_say_so(family, capsys, option):
    assert main(["score", *models(family, "one"), option]) == 2
    assert "needs samples: give --data" in capsys.readouterr().err


def test_a_file_in_the_way_is_seen_before_the_run(family, tmp_path, capsys):
    (tmp_path / "taken").write_text("mine")
    out = str(tmp_path / "taken" / "score")
    assert main(with_texts(family, "--out", out)) == 2
    assert "is a file: give a directory" in capsys.readouterr().err

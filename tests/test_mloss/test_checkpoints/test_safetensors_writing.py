import math

import pytest
import torch
from safetensors.torch import load_file

from mloss.checkpoints import Entry
from mloss.checkpoints.safetensors_file import safetensors_entries
from mloss.checkpoints.safetensors_writing import write_safetensors


def family_of_entries(reads):
    values = {
        "a": torch.arange(5.0),
        "n": torch.tensor([3, 4]),
        "none": torch.ones(0, 2),
        "h": torch.ones(3).bfloat16(),
    }

    def entry(name, value):
        def read():
            reads.append(name)
            return value

        return Entry(tuple(value.shape), value.dtype, read)

    return values, {name: entry(name, value) for name, value in values.items()}


def test_a_file_cut_anywhere_is_gone_on_with(tmp_path):
    reads = []
    values, entries = family_of_entries(reads)
    write_safetensors(tmp_path / "whole", entries)
    whole = (tmp_path / "whole").read_bytes()
    assert reads == ["n", "a", "none", "h"]
    begin = len(whole) - (16 + 20 + 0 + 6)
    for length in range(len(whole) + 1):
        (tmp_path / "cut").write_bytes(whole[:length])
        reads.clear()
        told = []
        write_safetensors(tmp_path / "cut", entries, written=told.append)
        assert (tmp_path / "cut").read_bytes() == whole
        # What is there is not computed again.
        there = sum(length >= begin + end for end in (16, 36, 36, 42))
        assert reads == ["n", "a", "none", "h"][there if length >= begin else 0 :]
        assert told == ["n", "a", "none", "h"]
    for name, value in load_file(tmp_path / "cut").items():
        assert torch.equal(value, values[name])


def test_a_file_of_something_else_is_written_anew(tmp_path):
    _, entries = family_of_entries([])
    write_safetensors(tmp_path / "whole", entries)
    (tmp_path / "other").write_bytes(b"x" * 1000)
    write_safetensors(tmp_path / "other", entries)
    assert (tmp_path / "other").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_not_written(tmp_path, value):
    entries = {"w": Entry((2,), torch.float32, lambda: torch.tensor([1.0, value]))}
    with pytest.raises(ValueError, match=r"'w' of the merge has values that .*float32"):
        write_safetensors(tmp_path / "file", entries)


def test_tensors_are_read_as_they_lie_and_writing_to_them_changes_no_file(tmp_path):
    values, entries = family_of_entries([])
    write_safetensors(tmp_path / "file", entries)
    before = (tmp_path / "file").read_bytes()
    for name, entry in safetensors_entries(tmp_path / "file").items():
        value = entry.read()
        assert torch.equal(value, values[name])
        value.zero_()
        assert torch.equal(entry.read(), values[name])
    assert (tmp_path / "file").read_bytes() == before


def test_a_tensor_outlives_its_file(tmp_path):
    values, entries = family_of_entries([])
    write_safetensors(tmp_path / "file", entries)
    value = safetensors_entries(tmp_path / "file")["a"].read()
    (tmp_path / "file").unlink()
    assert torch.equal(value, values["a"])

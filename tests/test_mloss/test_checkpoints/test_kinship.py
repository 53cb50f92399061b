import math

import pytest
import torch
from safetensors.torch import save_file

from mloss.checkpoints import open_checkpoint
from mloss.checkpoints.kinship import _sample, with_kinship


@pytest.fixture
def kinship_of(tmp_path):
    """The kinship of a state with a base, once some of its names are read."""

    def of(base, state, *, read=None):
        for name, saved in (("base", base), ("source", state)):
            save_file(saved, tmp_path / f"{name}.safetensors")
        start = open_checkpoint(tmp_path / "base.safetensors")
        source = open_checkpoint(tmp_path / "source.safetensors")
        (noting,), (kinship,) = with_kinship(start, [source])
        for name in read or noting:
            assert torch.equal(noting[name], state[name])
            noting[name]  # a second reading changes nothing
        return kinship

    return of


def state(value=1.0):
    return {"w": torch.full((100, 100), value), "b": torch.zeros(3)}


def test_the_distance_is_relative_to_the_base(kinship_of):
    found = kinship_of(state(), state(1.25))
    assert found.relative == 0.25
    assert found.complete
    assert not found.same


def test_an_equal_source_is_the_same(kinship_of):
    found = kinship_of(
        state() | {"n": torch.tensor(3)}, state() | {"n": torch.tensor(3)}
    )
    assert found.relative == 0
    assert found.complete
    assert found.same


def test_one_other_number_anywhere_is_not_the_same(kinship_of):
    changed = state()
    changed["w"][57, 91] = 2
    assert not kinship_of(state(), changed).same


def test_what_is_not_read_is_not_known(kinship_of):
    found = kinship_of(state(), state(2.0), read=["b"])
    assert not found.complete
    assert found.same
    assert found.relative == 0


def test_a_base_of_zeros(kinship_of):
    assert math.isinf(kinship_of(state(0.0), state()).relative)


@pytest.mark.parametrize("values", [1, 4095, 4097, 8191, 8193, 100_000])
def test_a_few_values_are_compared(values):
    assert min(values, 2048) <= len(_sample(torch.arange(values))) <= 4096


def test_no_values_are_compared_of_none():
    assert len(_sample(torch.empty(0))) == 0

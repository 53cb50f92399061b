import importlib.util
import os

import pytest
import torch
from torch.testing import assert_close

from mloss.digits.cache import cached, group

TENSORS = {"a/x": torch.arange(200.0), "a/y": torch.tensor(2), "b/x": torch.ones(2, 3)}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLOSS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path, cache):  # noqa: ARG001  # no test writes to the user's own cache
    """A module whose source a test can change."""
    path = tmp_path / "recipe.py"
    path.write_text("STEPS = 1\n")
    spec = importlib.util.spec_from_file_location("recipe", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Computation:
    def __init__(self, tensors=TENSORS):
        self.runs, self.tensors = 0, tensors

    def __call__(self):
        self.runs += 1
        return dict(self.tensors)


def test_a_second_call_reads_the_first(cache, source):
    compute = Computation()
    for _ in range(2):
        found = cached("n", compute, config={"seed": 0}, sources=[source])
        assert_close(found, TENSORS, rtol=0, atol=0)
    assert compute.runs == 1
    assert len(list(cache.iterdir())) == 1


def test_every_dtype_is_kept(cache, source):
    tensors = {"rows": torch.ones(2, 3, dtype=torch.bfloat16), "one": torch.tensor(0.5)}
    compute = Computation(tensors)
    for _ in range(2):
        found = cached("n", compute, config={}, sources=[source])
        assert_close(found, tensors, rtol=0, atol=0)
    assert compute.runs == 1
    assert cache.exists()


def test_where_nothing_can_be_written_it_is_computed_each_time(
    source, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("MLOSS_CACHE", str(tmp_path / "file" / "cache"))
    compute = Computation()
    for _ in range(2):
        found = cached("n", compute, config={}, sources=[source])
        assert_close(found, TENSORS, rtol=0, atol=0)
    assert compute.runs == 2


def test_another_configuration_is_another_result(cache, source):
    compute = Computation()
    for seed in (0, 1):
        cached("n", compute, config={"seed": seed}, sources=[source])
    assert compute.runs == 2
    assert len(list(cache.iterdir())) == 2


def test_changed_source_computes_afresh(source, tmp_path):
    compute = Computation()
    cached("n", compute, config={}, sources=[source])
    (tmp_path / "recipe.py").write_text("STEPS = 2\n")
    cached("n", compute, config={}, sources=[source])
    assert compute.runs == 2


def flip_last_byte(content):
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    "damage",
    [flip_last_byte, lambda content: content[:-5], lambda _: b"", lambda _: b"{}" * 99],
    ids=["a flipped bit", "cut short", "empty", "another format"],
)
def test_a_damaged_file_is_replaced(cache, source, damage):
    compute = Computation()
    cached("n", compute, config={}, sources=[source])
    (file,) = cache.iterdir()
    intact = file.read_bytes()
    file.write_bytes(damage(intact))
    found = cached("n", compute, config={}, sources=[source])
    assert_close(found, TENSORS, rtol=0, atol=0)
    assert compute.runs == 2
    cached("n", compute, config={}, sources=[source])
    assert compute.runs == 2


def test_an_interrupted_computation_leaves_nothing(cache, source):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached("n", interrupted, config={}, sources=[source])
    assert not cache.exists()


def test_an_interrupted_write_leaves_nothing(cache, source, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cached("n", Computation(), config={}, sources=[source])
    assert list(cache.iterdir()) == []


def test_a_group_goes_by_its_own_keys():
    assert group(TENSORS, "a") == {"x": TENSORS["a/x"], "y": TENSORS["a/y"]}

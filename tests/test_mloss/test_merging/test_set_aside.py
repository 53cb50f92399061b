import pytest
import torch

from mloss.merging.set_aside import SetAside


def test_tensors_come_back_as_they_were():
    generator = torch.Generator().manual_seed(0)
    tensors = {
        str(shape): torch.randn(shape, generator=generator)
        for shape in [(3, 4), (0,), (), (2, 3, 2)]
    }
    tensors["turned"] = torch.randn(4, 6, generator=generator).T
    tensors["double"] = torch.randn(5, generator=generator, dtype=torch.float64)
    aside = SetAside()
    for key, value in tensors.items():
        aside.put(key, value)
    assert list(aside) == list(tensors)
    for key in reversed(tensors):
        assert aside[key].dtype == tensors[key].dtype
        assert torch.equal(aside[key], tensors[key])


def test_what_was_not_put_there():
    with pytest.raises(KeyError, match="weight"):
        SetAside()["weight"]

import pytest
import torch
from torch.backends import cudnn

from mloss.tf32 import convolutions_as_products


@pytest.fixture(autouse=True)
def torch_settings():
    """What torch starts with, and again in the end."""
    assert cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32 = True


@pytest.mark.parametrize(("precision", "asked"), [("highest", False), ("high", True)])
def test_convolutions_round_as_products_do(precision, asked):
    torch.set_float32_matmul_precision(precision)
    with convolutions_as_products():
        assert cudnn.allow_tf32 is asked
    assert cudnn.allow_tf32


def test_after_an_error_the_setting_is_as_it_was():
    with pytest.raises(KeyError), convolutions_as_products():
        raise KeyError
    assert cudnn.allow_tf32

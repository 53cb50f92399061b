import pytest
import torch
from torch import nn

from mloss.outputs import check_finite, flat_output


class Rows(nn.Module):
    """As many copies of its first row as asked for."""

    def __init__(self, count):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.count = count

    def forward(self, input_ids, attention_mask):
        rows = input_ids[: self.count, :, None] * self.weight
        return rows + 0 * attention_mask[: self.count, :, None]


def test_padding_has_no_output():
    batch = {
        "input_ids": torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        "attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]]),
    }
    model = Rows(2)
    found = flat_output(model, model.state_dict(), batch)
    assert found.tolist() == [[1, 1, 2, 2, 0, 0], [4, 4, 5, 5, 6, 6]]


def test_refusals():
    batch = {"input_ids": torch.ones(2, 3), "attention_mask": torch.ones(2, 3)}
    model = Rows(1)
    with pytest.raises(ValueError, match=r"2 samples, got shape \(1, 3, 2\)"):
        flat_output(model, model.state_dict(), batch)
    with pytest.raises(ValueError, match="an infinity or a NaN"):
        check_finite(torch.tensor([1.0, torch.nan]))

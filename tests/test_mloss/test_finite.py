import math

import pytest
import torch

from mloss.finite import all_finite

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_one_wrong_number_among_many(dtype, wrong):
    values = torch.linspace(-1, 1, 1000, dtype=dtype).reshape(10, 100)
    assert all_finite(values)
    values[3, 7] = wrong
    assert not all_finite(values)


def test_both_infinities_and_nothing_at_all():
    assert not all_finite(torch.tensor([math.inf, 0.0, -math.inf]))
    assert all_finite(torch.empty(0, 3))

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mloss.merging.pruning.trim import trim, trim_rows

densities = st.floats(0, 1)


def vector(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def trimmed_by_sorting(entries, density):
    """Keep floor(density n + 1/2) entries, largest first, earlier first in a tie."""
    count = math.floor(density * len(entries) + 0.5)
    order = sorted(range(len(entries)), key=lambda i: (-abs(entries[i]), i))
    return [x if i in order[:count] else 0.0 for i, x in enumerate(entries)]


@given(entries=st.lists(st.integers(-3, 3), min_size=1, max_size=30), density=densities)
def test_keeps_exactly_the_largest_and_the_earlier_of_equals(entries, density):
    values = torch.tensor(entries, dtype=torch.float64)
    assert trim(values, density=density).tolist() == trimmed_by_sorting(
        entries, density
    )


@given(seed=st.integers(0, 2**31), rates=st.lists(densities, min_size=1, max_size=6))
def test_each_row_has_its_own_rate(seed, rates):
    rows = vector(seed, len(rates), 7)
    kept = trim_rows(rows, torch.tensor(rates, dtype=torch.float64))
    expected = [
        trimmed_by_sorting(row, rate)
        for row, rate in zip(rows.tolist(), rates, strict=True)
    ]
    assert kept.tolist() == expected


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 4), (2, 3, 4)])
def test_all_and_nothing(shape):
    values = vector(0, *shape)
    assert torch.equal(trim(values, density=1), values)
    assert torch.equal(trim(values, density=0), torch.zeros(shape).double())


def test_one_budget_for_the_whole_tensor():
    values = torch.tensor([[9.0, 8.0], [1.0, 2.0]])
    assert trim(values, density=0.5).tolist() == [[9.0, 8.0], [0.0, 0.0]]


@pytest.mark.parametrize("density", [-0.1, 1.1, 20, math.nan])
def test_a_density_that_is_no_fraction(density):
    with pytest.raises(ValueError, match="density must be a fraction"):
        trim(torch.ones(3), density=density)

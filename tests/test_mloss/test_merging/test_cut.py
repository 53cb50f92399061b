import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mloss.merging import ties
from mloss.merging.pruning.cut import cut, cuts_of_differences, trimmed
from mloss.merging.pruning.trim import trim, trim_rows

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def sorted_trim(vector, count):
    """Keep `count` entries, largest first and earlier first in a tie, by sorting."""
    order = vector.abs().argsort(descending=True, stable=True)
    kept = torch.zeros_like(vector, dtype=torch.bool)
    kept[order[:count]] = True
    return vector.where(kept, 0)


def fine_tuned(seed, dtype, *, size, q=3):
    """Numbers that agree in many places and in many sizes of their differences."""
    generator = torch.Generator().manual_seed(seed)
    origin = torch.randn(size, generator=generator).to(dtype)
    steps = torch.randint(-4, 5, (q, size), generator=generator)
    noise = torch.randn(q, size, generator=generator) * (steps % 2)
    return origin, [
        (origin + 2.0**-6 * (s + 1e-8 * n)).to(dtype)
        for s, n in zip(steps, noise, strict=True)
    ]


@pytest.mark.parametrize("dtype", DTYPES)
@given(seed=st.integers(0, 2**31), size=st.integers(1, 40), share=st.floats(0, 1))
def test_the_cut_is_that_of_sorting_in_float64(dtype, seed, size, share):
    origin, values = fine_tuned(seed, dtype, size=size)
    count = int(share * size)
    found = cuts_of_differences(origin, values, count=count)
    for value, where in zip(values, found, strict=True):
        vector = value.double() - origin.double()
        pieces = [trimmed(vector[:7], where), trimmed(vector[7:], where, start=7)]
        assert torch.equal(torch.cat(pieces), sorted_trim(vector, count))


@given(sizes=st.lists(st.integers(0, 3), min_size=1, max_size=20), data=st.data())
def test_ties_are_cut_where_they_are_earliest(sizes, data):
    count = data.draw(st.integers(0, len(sizes)))
    vector = torch.tensor(sizes, dtype=torch.float64)
    where = cut(np.array(sizes, dtype=np.float64), count)
    assert torch.equal(trimmed(vector, where), sorted_trim(vector, count))


def test_numbers_that_float32_does_not_tell_apart():
    # Both differences are 1 in float32; the second is the larger one.
    origin = torch.tensor([2.0**-25, -(2.0**-25)])
    value = torch.tensor([1.0, 1.0])
    (where,) = cuts_of_differences(origin, [value], count=1)
    vector = value.double() - origin.double()
    assert trimmed(vector, where).nonzero().flatten().tolist() == [1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("combine", ["weighted_sum", "disjoint_mean"])
def test_ties_is_the_same_bytes_by_sorting(dtype, combine, monkeypatch):
    monkeypatch.setattr("mloss.tiles._AT_ONCE", 13)
    origin, values = fine_tuned(5, dtype, size=60)
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    vectors = torch.stack(
        [sorted_trim(value.double() - origin.double(), 18) for value in values]
    )
    elected = torch.zeros(60, dtype=torch.float64)
    for weight, vector in zip(weights.tolist(), vectors, strict=True):
        elected = torch.add(elected, vector, alpha=weight)
    total, mass = torch.zeros_like(elected), torch.zeros_like(elected)
    for weight, vector in zip(weights.tolist(), vectors, strict=True):
        agrees = (vector.sign() == elected.sign()) & (vector != 0)
        total = torch.add(total, vector.where(agrees, 0), alpha=weight)
        mass = torch.add(mass, agrees.double(), alpha=weight)
    if combine == "disjoint_mean":
        total = total / mass.where(mass > 0, 1)
    ours = ties(
        {"w": origin},
        [{"w": value} for value in values],
        weights=weights,
        density=0.3,
        combine=combine,
    )
    assert torch.equal(ours["w"], (origin.double() + total).to(dtype))


@given(seed=st.integers(0, 2**31), rows=st.integers(1, 5))
def test_rows_are_trimmed_as_by_sorting(seed, rows):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-5, 6, (rows, 11), generator=generator).double()
    rates = torch.rand(rows, generator=generator, dtype=torch.float64)
    expected = [
        sorted_trim(row, int(rate * 11 + 0.5))
        for row, rate in zip(values, rates.tolist(), strict=True)
    ]
    assert torch.equal(trim_rows(values, rates), torch.stack(expected))


def test_the_density_of_a_float32_vector_is_not_rounded():
    # 0.3 in float32 is 0.30000001: of 5 entries 1.5 are kept, which is 2 either way,
    # but 0.7 is 0.69999999, of which 3.4999999 would be 3 and not 4.
    assert trim(torch.arange(1.0, 6.0), density=0.7).count_nonzero() == 4


@pytest.mark.parametrize("count", [1, 7, 300, 999, 1000])
@pytest.mark.parametrize("spread", ["normal", "few values", "sample misleads"])
def test_a_sample_that_bounds_the_cut_decides_nothing(monkeypatch, spread, count):
    monkeypatch.setattr("mloss.merging.pruning.cut._SAMPLE", 20)
    rng = np.random.default_rng(0)
    sizes = np.abs(rng.standard_normal(1000))
    if spread == "few values":
        sizes = np.floor(2 * sizes)
    elif spread == "sample misleads":
        sizes[::50] += 10
    vector = torch.from_numpy(sizes)
    assert torch.equal(trimmed(vector, cut(sizes, count)), sorted_trim(vector, count))

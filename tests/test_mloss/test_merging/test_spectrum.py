import pytest
import torch
from torch.testing import assert_close

from mloss.merging.spectra.spectrum import polar, spectrum


def drawn(*shape, dtype):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "columns", "rank"), [(200, 60, 7), (60, 200, 59)])
def test_a_matrix_of_low_rank_has_as_many_directions(rows, columns, rank, dtype):
    matrix = drawn(rows, rank, dtype=dtype) @ drawn(rank, columns, dtype=dtype)
    assert len(spectrum(matrix).sizes) == rank
    repeated = drawn(rows, rank, dtype=dtype).repeat(1, 3)
    assert len(spectrum(repeated).sizes) == min(rank, rows)
    assert polar(repeated).shape == repeated.shape


def test_small_directions_are_kept():
    sizes = torch.tensor([1.0, 1e-5])
    assert_close(spectrum(torch.diag(sizes)).sizes, sizes, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(3, 2), (0, 2), (2, 0)])
def test_zeros_have_no_direction(shape):
    of = spectrum(torch.zeros(shape))
    assert of.sizes.shape == (0,)
    assert torch.equal(of.matrix(), torch.zeros(shape))
    assert torch.equal(polar(torch.zeros(shape)), torch.zeros(shape))


def test_the_polar_factor_of_repeated_vectors_adds_no_direction():
    column = torch.tensor([[0.6], [0.8]], dtype=torch.float64)
    expected = column.repeat(1, 2) / 2**0.5
    # A few roundings of numbers below 1.
    assert_close(polar(column.repeat(1, 2)), expected, rtol=0, atol=1e-15)

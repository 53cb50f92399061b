import pytest
import torch

from mloss.averaging import averaged
from mloss.tiles import by_tiles


@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 5)])
def test_every_value_has_its_place(monkeypatch, shape):
    monkeypatch.setattr("mloss.tiles._AT_ONCE", 4)
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    doubled = by_tiles(values, lambda part: 2 * values.reshape(-1)[part])
    assert torch.equal(doubled, 2 * values)


def test_what_is_made_is_contiguous():
    made = by_tiles(torch.ones(2, 3).T, lambda _: torch.arange(6.0))
    assert made.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert made.is_contiguous()


def test_pieces_are_asked_for_in_flat_order(monkeypatch):
    monkeypatch.setattr("mloss.tiles._AT_ONCE", 4)
    generator = torch.Generator().manual_seed(0)

    def drawn(part):
        return torch.rand(len(range(11)[part]), generator=generator)

    asked = by_tiles(torch.empty(11), drawn)
    generator.manual_seed(0)
    pieces = [torch.rand(count, generator=generator) for count in (4, 4, 3)]
    assert torch.equal(asked, torch.cat(pieces))


def test_what_goes_wrong_in_a_piece_is_raised(monkeypatch):
    monkeypatch.setattr("mloss.tiles._AT_ONCE", 2)

    def piece(part):
        if part.start == 4:
            raise ValueError("the third piece")
        return torch.ones(2)

    with pytest.raises(ValueError, match="the third piece"):
        by_tiles(torch.ones(10), piece)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("at_once", [1, 4, 1000])
def test_means_are_the_same_bytes_in_any_pieces(monkeypatch, dtype, at_once):
    monkeypatch.setattr("mloss.tiles._AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(1)
    values = [torch.randn(11, 9, generator=generator).to(dtype) for _ in range(5)]
    weights = torch.rand(5, generator=generator, dtype=torch.float64)
    expected = torch.zeros(11, 9, dtype=torch.float64)
    for weight, value in zip(weights.tolist(), values, strict=True):
        expected = torch.add(expected, value.double(), alpha=weight)
    ours = averaged(weights, values, like=values[0])
    assert torch.equal(ours, expected.to(dtype))

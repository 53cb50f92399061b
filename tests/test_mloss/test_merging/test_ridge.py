import pytest
import torch
from torch.testing import assert_close

from mloss.merging.from_samples.ridge import RIDGES, Sums, fitted

EPS = torch.finfo(torch.float64).eps


def rows(seed, *, count=40, features=5, nodes=3):
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": torch.float64}
    return torch.randn(count, features, **draw), torch.randn(count, nodes, **draw)


@pytest.mark.parametrize("free", [0, 1])
@pytest.mark.parametrize("ridge", [1e-3, 1.0, 100.0])
def test_it_is_least_squares_with_rows_for_the_ridge(ridge, free):
    x, y = rows(0)
    kept = x.shape[1] - free
    cost = ridge * x[:, :kept].square().sum() / kept
    root = torch.diag(torch.tensor([1.0] * kept + [0.0] * free).double() * cost.sqrt())
    direct = torch.linalg.lstsq(
        torch.cat([x, root]), torch.cat([y, y.new_zeros(5, 3)])
    ).solution
    # Condition of the Gram matrix, below 100 here, times its dimension in roundings.
    assert_close(Sums.of(x, y).solved(ridge, free=free), direct, rtol=0, atol=1e3 * EPS)


def test_fits_do_not_depend_on_the_number_of_threads():
    # With two threads and without `one_thread` they differ in their last bits.
    x, y = rows(0, count=1280, features=257, nodes=64)
    fits, before = [], torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        halves = (Sums.of(x[i::2], y[i::2]) for i in (0, 1))
        fits.append(fitted(*halves, ridge=0.1))
    torch.set_num_threads(before)
    assert torch.equal(*(fit.coefficients for fit in fits))
    assert fits[0].held_out == fits[1].held_out


def test_sums_of_parts_add_up():
    x, y = rows(1)
    whole, parts = Sums.of(x, y), Sums.of(x[:15], y[:15]) + Sums.of(x[15:], y[15:])
    assert_close(parts.gram, whole.gram, rtol=0, atol=100 * EPS)
    assert_close(parts.cross, whole.cross, rtol=0, atol=100 * EPS)
    assert parts.square == pytest.approx(whole.square, rel=100 * EPS)


def test_what_is_left_is_the_fraction_of_the_squares():
    x, y = rows(2)
    B = torch.full((5, 3), 0.1, dtype=torch.float64)
    left = (y - x @ B).square().sum() / y.square().sum()
    assert Sums.of(x, y).left(B) == pytest.approx(left.item(), rel=100 * EPS)


def test_a_feature_that_is_always_zero_has_no_coefficient():
    x, y = rows(3)
    x[:, 2] = 0
    assert not Sums.of(x, y).solved(0.1)[2].any()
    assert not Sums.of(torch.zeros_like(x), y).solved(0.1).any()


def test_the_ridge_is_the_best_on_the_rows_held_out():
    x, y = rows(4, count=12)
    y = y + x @ torch.ones(5, 3, dtype=torch.float64)
    half, other = Sums.of(x[::2], y[::2]), Sums.of(x[1::2], y[1::2])
    left = {ridge: other.left(half.solved(ridge)) for ridge in RIDGES}
    fit = fitted(half, other)
    assert fit.held_out == min(left.values()) == left[fit.ridge]
    assert len(set(left.values())) == len(RIDGES)
    whole = (half + other).solved(fit.ridge)
    assert torch.equal(fit.coefficients, whole)


def test_noise_is_not_fitted():
    # Any coefficients add to what is left of rows that are opposite.
    x, y = rows(5, count=6)
    fit = fitted(Sums.of(x, y), Sums.of(x, -y))
    assert (fit.ridge, fit.held_out) == (None, 1.0)
    assert not fit.coefficients.any()


def test_a_given_ridge_is_taken_as_it_is():
    x, y = rows(6, count=6)
    fit = fitted(Sums.of(x, y), Sums.of(x, -y), ridge=0.5)
    assert fit.ridge == 0.5
    assert fit.held_out > 1

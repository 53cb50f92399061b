import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from mloss.merging.from_samples.regression import Gram, Regression, check_off_diagonal

EPS = float(np.finfo(np.float64).eps)
seeds = st.integers(0, 2**31)
factors = st.floats(0, 0.95)


@pytest.fixture
def threads():
    """A number of threads that holds for the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def problem(seed, *, rows=9, inputs=4, outputs=3, q=3):
    """Inputs [row, input] and a weight of each source, and the sources' shares."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    shares = torch.rand(q, generator=generator, dtype=torch.float64) + 0.1
    return (
        [draw(rows, inputs) for _ in range(q)],
        [draw(outputs, inputs) for _ in range(q)],
        (shares / shares.sum()).tolist(),
    )


def fitted(inputs, weights, shares, *, off_diagonal, start=None):
    fit = Regression(
        torch.zeros_like(weights[0]) if start is None else start,
        off_diagonal=off_diagonal,
    )
    for x, weight, share in zip(inputs, weights, shares, strict=True):
        gram = Gram()
        for row in x.split(4):
            gram.add(row)
        fit.add(gram.mean, weight, share=share)
    return fit.solved()


def by_inverse(inputs, weights, shares, *, off_diagonal):
    """The formula as printed, for W' with inputs in rows."""
    mask = torch.full((inputs[0].shape[1],) * 2, off_diagonal, dtype=torch.float64)
    mask.fill_diagonal_(1)
    grams = [s * mask * (x.T @ x) / len(x) for s, x in zip(shares, inputs, strict=True)]
    right = sum(g @ w.T for g, w in zip(grams, weights, strict=True))
    return (torch.linalg.inv(sum(grams)) @ right).T


@given(seed=seeds, off_diagonal=factors)
def test_the_printed_formula(seed, off_diagonal):
    ours = fitted(*problem(seed), off_diagonal=off_diagonal)
    expected = by_inverse(*problem(seed), off_diagonal=off_diagonal)
    # Numbers below 8; unit diagonals and the factor keep the condition below 80, that
    # of the printed inverse times the spread of the diagonals, below 100 here.
    assert_close(ours, expected, rtol=0, atol=8 * 80 * 100 * EPS)


@given(seed=seeds, off_diagonal=factors, q=st.integers(1, 4))
def test_where_it_starts_does_not_matter(seed, off_diagonal, q):
    given_problem = problem(seed, q=q)
    start = problem(seed + 1, q=1)[1][0]
    from_zero = fitted(*given_problem, off_diagonal=off_diagonal)
    from_there = fitted(*given_problem, off_diagonal=off_diagonal, start=start)
    assert_close(from_there, from_zero, rtol=0, atol=8 * 80 * 100 * EPS)


@given(seed=seeds, off_diagonal=st.floats(0, 1))
def test_sources_that_agree_are_kept_to_the_last_bit(seed, off_diagonal):
    inputs, (weight, *_), shares = problem(seed)
    ours = fitted(inputs, [weight] * 3, shares, off_diagonal=off_diagonal, start=weight)
    assert torch.equal(ours, weight)


def test_an_input_that_is_always_zero_leaves_its_column():
    inputs, weights, shares = problem(0)
    start = torch.full_like(weights[0], 7.0)
    for x in inputs:
        x[:, 1] = 0
    for off_diagonal in (0.0, 0.9, 1.0):
        ours = fitted(inputs, weights, shares, off_diagonal=off_diagonal, start=start)
        rest = [0, 2, 3]
        expected = by_inverse(
            [x[:, rest] for x in inputs],
            [w[:, rest] for w in weights],
            shares,
            off_diagonal=off_diagonal,
        )
        assert_close(ours[:, 1], start[:, 1], rtol=0, atol=8 * 80 * EPS)
        assert_close(ours[:, rest], expected, rtol=0, atol=8 * 80 * 100 * EPS)


def test_with_whole_grams_and_few_rows_only_seen_directions_move():
    inputs, weights, shares = problem(0, rows=1, inputs=8, q=2)
    start = torch.zeros_like(weights[0])
    ours = fitted(inputs, weights, shares, off_diagonal=1.0, start=start)
    # Two rows in eight dimensions: both sources can be met.
    for x, weight in zip(inputs, weights, strict=True):
        assert_close(x @ ours.T, x @ weight.T, rtol=0, atol=1e4 * EPS)
    assert torch.linalg.matrix_rank(ours) == 2


@pytest.mark.parametrize("rows", [3, 40])
def test_whole_grams_of_float32_rows_meet_both_sources_on_them(rows):
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(rows, 128, generator=generator) for _ in range(2)]
    weights = [torch.randn(5, 128, generator=generator) for _ in range(2)]
    fit = Regression(sum(weights) / 2, off_diagonal=1.0)
    for x, weight in zip(inputs, weights, strict=True):
        gram = Gram()
        gram.add(x)
        fit.add(gram.mean, weight, share=0.5)
    ours = fit.solved()
    for x, weight in zip(inputs, weights, strict=True):
        wide = x.double()
        # Condition of 2 * 40 rows in 128 dimensions, below 100, times numbers below 60.
        assert_close(wide @ ours.T, wide @ weight.double().T, rtol=0, atol=1e5 * EPS)


@pytest.mark.parametrize("off_diagonal", [0.9, 1.0])
def test_fits_do_not_depend_on_the_number_of_threads(threads, off_diagonal):
    # With two threads and without `one_thread` they differ in their last bits.
    given_problem = problem(0, rows=640, inputs=256, outputs=64, q=2)
    fits = []
    for count in (1, 2):
        threads(count)
        fits.append(fitted(*given_problem, off_diagonal=off_diagonal))
    assert torch.equal(*fits)


def test_the_mean_over_rows_counts_every_row_once():
    x = torch.arange(12.0).reshape(6, 2)
    gram = Gram()
    for part in x.split([1, 5]):
        gram.add(part)
    assert torch.equal(gram.mean, (x.T @ x).double() / 6)
    assert Gram().mean is None


def test_halves_do_not_overflow():
    x = torch.full((4, 1), 200.0, dtype=torch.float16)
    gram = Gram()
    gram.add(x)
    assert gram.mean.item() == 200.0**2


@pytest.mark.parametrize("factor", [-0.1, 1.1, float("nan")])
def test_a_factor_outside_its_range_is_named(factor):
    with pytest.raises(ValueError, match=r"off_diagonal must be in \[0, 1\]"):
        check_off_diagonal(factor)

import mpmath
import pytest
import torch
from random_models import random_models, random_weights, with_equal_steps
from singular_by_mpmath import columns, diagonal, svd, value_and_tolerance
from torch.testing import assert_close

from mloss.merging import average
from mloss.merging.methods.iso_c import iso_c
from mloss.merging.methods.iso_cts import iso_cts

EPS = torch.finfo(torch.float64).eps
SHAPES = [(7, 5), (5, 7), (6, 6)]


def steps(base, sources, key):
    return [source[key] - base[key] for source in sources]


def total(matrices):
    result = matrices[0]
    for matrix in matrices[1:]:
        result = result + matrix
    return result


def iso_c_by_definition(matrices):
    left, sizes, right = svd(total(matrices))
    return left * right * mpmath.fsum(sizes) / len(sizes)


def iso_cts_by_definition(matrices, *, common, own):
    """Common directions of the sum, and `own` of each matrix, made alike."""
    left, sizes, right = svd(total(matrices))
    lefts, rights = [left[:, :common]], [right[:common, :].T]
    sizes = sizes[:common]
    for matrix in matrices:
        without = matrix - lefts[0] * (lefts[0].T * matrix)
        left, values, right = svd(without)
        lefts.append(left[:, :own])
        rights.append(right[:own, :].T)
        sizes += values[:own]
    left_u, _, left_v = svd(columns(*lefts))
    right_u, _, right_v = svd(columns(*rights))
    alike = diagonal([mpmath.fsum(sizes) / len(sizes)] * len(sizes))
    return left_u * left_v * alike * (right_u * right_v).T


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("q", [1, 3])
def test_iso_c_by_definition(seed, shape, q):
    base, sources = random_models(seed, q=q, shapes={"w": shape})
    matrices = steps(base, sources, "w")
    expected, tolerance = value_and_tolerance(iso_c_by_definition, matrices)
    merged = iso_c(base, sources)["w"] - base["w"]
    assert_close(merged, expected, rtol=0, atol=tolerance)
    assert tolerance < 1e-9


# Of 5 directions int(0.4 * 5) = 2 are common and 3 left: round(3 / 2) = 2 for each of
# two tasks, so that 1 is common. Of 6, int(2.4) = 2 and 4 left: 2 each, 2 common.
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("shape", "common"), [((7, 5), 1), ((5, 7), 1), ((6, 6), 2)])
def test_iso_cts_by_definition(seed, shape, common):
    base, sources = random_models(seed, q=2, shapes={"w": shape})

    def by_definition(matrices):
        return iso_cts_by_definition(matrices, common=common, own=2)

    matrices = steps(base, sources, "w")
    expected, tolerance = value_and_tolerance(by_definition, matrices)
    merged = iso_cts(base, sources, common=0.4)["w"] - base["w"]
    assert_close(merged, expected, rtol=0, atol=tolerance)
    assert tolerance < 1e-8


@pytest.mark.parametrize("shape", SHAPES)
def test_all_in_common_is_iso_c(shape):
    base, sources = random_models(0, q=3, shapes={"w": shape})
    expected, tolerance = value_and_tolerance(
        iso_c_by_definition, steps(base, sources, "w")
    )
    merged = iso_cts(base, sources, common=1)["w"] - base["w"]
    assert_close(merged, expected, rtol=0, atol=tolerance)


def test_more_sources_than_directions_to_share():
    # round(3 / 4) = 1 for each of four tasks would be more than there are.
    base, sources = random_models(0, q=4, shapes={"w": (3, 5)})
    merged, expected = iso_cts(base, sources, common=0), iso_c(base, sources)
    assert_close(merged["w"], expected["w"], rtol=0, atol=1e3 * EPS)


@pytest.mark.parametrize("method", [iso_c, iso_cts])
def test_the_step_is_isotropic_and_as_large_as_scale_says(method):
    base, sources = random_models(0, q=2)
    once, twice = method(base, sources), method(base, sources, scale=2)
    sizes = torch.linalg.svdvals(once["up.weight"] - base["up.weight"])
    # A few roundings of the sum and of five products of numbers below 8.
    assert_close(sizes, sizes.mean().expand(5), rtol=0, atol=1e3 * EPS)
    for key in ("up.weight", "up.bias", "kernel"):
        assert_close(twice[key] - once[key], once[key] - base[key], rtol=0, atol=1e-14)


def test_the_sum_of_singular_values_stays():
    base, sources = random_models(0, q=3)
    step = iso_c(base, sources)["up.weight"] - base["up.weight"]
    summed = torch.stack(steps(base, sources, "up.weight")).sum(0)
    expected = torch.linalg.matrix_norm(summed, ord="nuc")
    got = torch.linalg.matrix_norm(step, ord="nuc")
    assert_close(got, expected, rtol=1e3 * EPS, atol=0)


def test_a_sum_of_low_rank_keeps_its_directions():
    base, _ = random_models(0, q=1, shapes={"w": (8, 6)})
    step = torch.zeros(8, 6, dtype=torch.float64)
    step[0, 0], step[1, 1] = 3, 1
    merged = iso_c(base, with_equal_steps(base, {"w": step}, q=2))["w"] - base["w"]
    # Twice the mean of 3 and 1.
    assert_close(merged, 4 * step.sign(), rtol=0, atol=1e3 * EPS)


@pytest.mark.parametrize("method", [iso_c, iso_cts])
def test_all_but_matrices_are_averaged(method):
    base, sources = random_models(0, q=3)
    weights = random_weights(0, q=3)
    merged = method(base, sources, weights=weights, exclude=["up.weight"])
    expected = average(base, sources, weights=weights)
    for key in base:
        # Some ten roundings of numbers below 8.
        assert_close(merged[key], expected[key], rtol=0, atol=100 * EPS)


@pytest.mark.parametrize("method", [iso_c, iso_cts])
def test_weights_are_lengths_of_the_task_matrices(method):
    base, sources = random_models(0, q=2, shapes={"w": (6, 5)})
    longer = [
        {"w": base["w"] + 2 * w * step, "steps": base["steps"]}
        for w, step in zip([0.25, 0.75], steps(base, sources, "w"), strict=True)
    ]
    merged, expected = method(base, sources, weights=[0.25, 0.75]), method(base, longer)
    # The added roundings of the inputs, some eps, through decompositions whose
    # condition on this seed is below 100 (the tests by definition measure it).
    assert_close(merged["w"], expected["w"], rtol=0, atol=1e4 * EPS)


@pytest.mark.parametrize("common", [-0.1, 1.5, float("nan")])
def test_a_common_part_that_is_no_fraction(common):
    base, sources = random_models(0, q=2)
    with pytest.raises(ValueError, match=r"common must be a fraction in \[0, 1\]"):
        iso_cts(base, sources, common=common)

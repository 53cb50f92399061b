import pytest
import torch
from random_models import random_models, random_weights, with_equal_steps
from singular_by_mpmath import columns, diagonal, svd, value_and_tolerance
from torch.testing import assert_close

from mloss.merging import METHODS, average
from mloss.merging.methods.tsv_m import tsv_m

EPS = torch.finfo(torch.float64).eps


def steps(base, sources, key):
    return [source[key] - base[key] for source in sources]


def by_definition(matrices):
    """Truncate, put side by side, replace by the nearest orthonormal vectors."""
    rank = min(matrices[0].rows, matrices[0].cols) // len(matrices)
    lefts, sizes, rights = [], [], []
    for matrix in matrices:
        left, values, right = svd(matrix)
        lefts.append(left[:, :rank])
        sizes += values[:rank]
        rights.append(right[:rank, :].T)
    left_u, _, left_v = svd(columns(*lefts))
    right_u, _, right_v = svd(columns(*rights))
    return left_u * left_v * diagonal(sizes) * (right_u * right_v).T


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (6, 6)])
@pytest.mark.parametrize("q", [1, 2, 3])
def test_a_matrix_by_definition(seed, shape, q):
    base, sources = random_models(seed, q=q, shapes={"w": shape})
    expected, tolerance = value_and_tolerance(by_definition, steps(base, sources, "w"))
    merged = tsv_m(base, sources)["w"] - base["w"]
    assert_close(merged, expected, rtol=0, atol=tolerance)
    assert tolerance < 1e-9


def test_weights_are_lengths_of_the_task_matrices():
    base, sources = random_models(0, q=3, shapes={"w": (7, 5)})
    weights = random_weights(0, q=3)
    longer = [
        3 * w * step for w, step in zip(weights, steps(base, sources, "w"), strict=True)
    ]
    expected, tolerance = value_and_tolerance(by_definition, longer)
    merged = tsv_m(base, sources, weights=weights)["w"] - base["w"]
    assert_close(merged, expected, rtol=0, atol=tolerance)


def test_all_but_matrices_are_averaged():
    base, sources = random_models(0, q=3)
    weights = random_weights(0, q=3)
    merged = tsv_m(base, sources, weights=weights, exclude=["up.weight"])
    expected = average(base, sources, weights=weights)
    for key in base:
        # Some ten roundings of numbers below 8.
        assert_close(merged[key], expected[key], rtol=0, atol=100 * EPS)


def test_a_matrix_with_fewer_rows_than_sources_is_averaged():
    base, sources = random_models(0, q=3, shapes={"w": (2, 5)})
    merged, expected = tsv_m(base, sources), average(base, sources)
    assert_close(merged["w"], expected["w"], rtol=0, atol=100 * EPS)


def test_a_source_of_weight_zero_does_not_take_a_share_of_the_rank():
    base, sources = random_models(0, q=3)
    merged = tsv_m(base, sources, weights=[0.5, 0, 0.5])
    expected = tsv_m(base, [sources[0], sources[2]])
    assert all(torch.equal(merged[key], expected[key]) for key in base)


def test_equal_sources_give_their_largest_directions_once():
    base, _ = random_models(0, q=1, shapes={"w": (8, 6)})
    step = torch.diag(torch.arange(8.0, 0, -1).double())[:, :6]
    merged = tsv_m(base, with_equal_steps(base, {"w": step}, q=2))["w"] - base["w"]
    largest = step.where(step >= 6, 0)
    assert_close(merged, largest, rtol=0, atol=1e3 * EPS)


def test_a_source_equal_to_the_base_turns_nothing():
    base, (source, _) = random_models(0, q=2, shapes={"w": (8, 6)})
    left, sizes, right = torch.linalg.svd(source["w"] - base["w"], full_matrices=False)
    largest = (left[:, :3] * sizes[:3]) @ right[:3]
    merged = tsv_m(base, [source, base])["w"] - base["w"]
    # Both are backward stable; the third and fourth singular value are 0.6 apart.
    assert sizes[2] - sizes[3] > 0.5
    assert_close(merged, largest, rtol=0, atol=1e3 * EPS)


def test_scale_is_of_the_whole_step():
    base, sources = random_models(0, q=2)
    once, twice = tsv_m(base, sources), tsv_m(base, sources, scale=2)
    for key in ("up.weight", "up.bias", "kernel"):
        assert_close(twice[key] - once[key], once[key] - base[key], rtol=0, atol=1e-14)


def test_half_precision_is_taken_apart_in_float32():
    base, sources = random_models(0, q=2, dtype=torch.float16)
    single = [{k: v.float() for k, v in m.items()} for m in (base, *sources)]
    merged, expected = tsv_m(base, sources), tsv_m(single[0], single[1:])
    for key in ("up.weight", "up.bias", "kernel"):
        assert torch.equal(merged[key], expected[key].half())


def test_a_key_to_exclude_that_is_not_there():
    base, sources = random_models(0, q=2)
    with pytest.raises(
        ValueError, match="exclude names 'proj', which the base has not"
    ):
        tsv_m(base, sources, exclude=["up.weight", "proj"])
    with pytest.raises(TypeError, match="exclude must be a collection of keys"):
        tsv_m(base, sources, exclude="up.weight")
    assert METHODS["tsv_m"].options == {"scale": 1.0, "exclude": ()}

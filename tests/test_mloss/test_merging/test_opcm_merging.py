import math

import mpmath
import pytest
import torch
from random_models import random_models, random_weights, with_equal_steps
from singular_by_mpmath import svd, value_and_tolerance
from torch.testing import assert_close

from mloss.merging.methods.opcm import opcm, unlike

EPS = torch.finfo(torch.float64).eps


def steps(base, sources, key):
    return [source[key] - base[key] for source in sources]


def length(matrix):
    return mpmath.sqrt(mpmath.fsum(x**2 for x in matrix))


def continually(tasks, *, alpha):
    """The recursion as published: the merge is rescaled after every source.

    Bases of the whole space, every coefficient by its inner product.
    """
    merged, scaling, lengths = tasks[0], mpmath.mpf(1), [length(tasks[0])]
    for task in tasks[1:]:
        lengths.append(length(task))
        left, sizes, right = svd(merged, full=True)
        share = [
            mpmath.fsum(sizes[: i + 1]) / mpmath.fsum(sizes) for i in range(len(sizes))
        ]
        rank = next(i for i, each in enumerate(share) if each > alpha)
        parts = left.T * task * right.T
        for i in range(parts.rows):
            for j in range(parts.cols):
                if i == j or (i < rank and j < rank):
                    parts[i, j] = 0
        grown = scaling * merged + left * parts * right
        mean = mpmath.fsum(lengths) / len(lengths)
        scaling = length(grown) / mean
        merged = grown / scaling
    return merged


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (6, 6)])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9])
def test_a_matrix_by_the_recursion(seed, shape, alpha):
    base, sources = random_models(seed, q=3, shapes={"w": shape})
    expected, tolerance = value_and_tolerance(
        lambda tasks: continually(tasks, alpha=alpha), steps(base, sources, "w")
    )
    merged = opcm(base, sources, alpha=alpha)["w"] - base["w"]
    assert_close(merged, expected, rtol=0, atol=tolerance)
    assert tolerance < 1e-8


def test_one_length_for_the_whole_model():
    base, sources = random_models(0, q=3)
    merged = opcm(base, sources)

    def size(state):
        parts = [(state[k] - base[k]).flatten() for k in base if k != "steps"]
        return torch.cat(parts).norm().item()

    mean = sum(map(size, sources)) / 3
    # Rounding of some hundred sums and products.
    assert math.isclose(size(merged), mean, rel_tol=100 * EPS)
    summed = {k: sum(steps(base, sources, k)) for k in ("up.bias", "kernel", "scalar")}
    ratios = [(merged[k] - base[k]) / summed[k] for k in summed]
    ratios = torch.cat([ratio.flatten() for ratio in ratios])
    # Each is a difference of numbers of size 1, over one that may be small.
    smallest = min(value.abs().min().item() for value in summed.values())
    spread = (ratios.max() - ratios.min()).item()
    assert spread < 20 * EPS / smallest


def test_excluded_matrices_are_summed():
    base, sources = random_models(0, q=2, shapes={"w": (5, 4)})
    merged = opcm(base, sources, exclude=["w"])["w"] - base["w"]
    summed = sum(steps(base, sources, "w"))
    mean = sum(step.norm() for step in steps(base, sources, "w")) / 2
    assert_close(merged, summed * mean / summed.norm(), rtol=0, atol=100 * EPS)


def test_what_is_left_shares_nothing_with_what_was_seen():
    _, (first, second) = random_models(0, q=2, shapes={"w": (7, 5)})
    left, sizes, right = torch.linalg.svd(first["w"], full_matrices=False)
    rest = unlike(second["w"], first["w"], alpha=0.5)
    parts = left.T @ rest @ right.T
    rank = int((sizes.cumsum(0) <= 0.5 * sizes.sum()).sum())
    assert 0 < rank < 4
    # Rounding of products of 7 numbers below 4; the rest is as it was.
    assert parts.diagonal().abs().max() < 1e3 * EPS
    assert parts[:rank, :rank].abs().max() < 1e3 * EPS
    removed = left.T @ (second["w"] - rest) @ right.T
    removed[:rank, :rank] = 0
    assert (removed - removed.diagonal().diag()).abs().max() < 1e3 * EPS


def test_alpha_one_removes_all_that_was_spanned():
    matrix = torch.arange(12.0).reshape(4, 3).double()
    seen = torch.zeros(4, 3).double()
    seen[0, 0], seen[1, 1] = 2, 1
    expected = matrix.clone()
    expected[:2, :2] = 0
    assert_close(unlike(matrix, seen, alpha=1), expected, rtol=0, atol=100 * EPS)


def test_nothing_seen_removes_nothing():
    matrix = torch.arange(12.0).reshape(4, 3).double()
    assert torch.equal(unlike(matrix, torch.zeros(4, 3).double(), alpha=0.5), matrix)


def test_a_source_seen_before_adds_nothing_to_a_matrix():
    base, _ = random_models(0, q=1, shapes={"w": (4, 3)})
    step = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).double()
    merged = opcm(base, with_equal_steps(base, {"w": step}, q=3))["w"] - base["w"]
    assert_close(merged, step, rtol=0, atol=1e3 * EPS)


def test_the_order_matters():
    base, sources = random_models(0, q=3)
    forward, backward = opcm(base, sources), opcm(base, sources[::-1])
    assert (forward["up.weight"] - backward["up.weight"]).abs().max() > 0.1


def test_weights_are_lengths_of_the_task_vectors():
    base, sources = random_models(0, q=3, shapes={"w": (6, 5)})
    weights = random_weights(0, q=3)
    longer = [
        3 * w * step for w, step in zip(weights, steps(base, sources, "w"), strict=True)
    ]
    expected, tolerance = value_and_tolerance(
        lambda tasks: continually(tasks, alpha=0.5), longer
    )
    merged = opcm(base, sources, weights=weights)["w"] - base["w"]
    assert_close(merged, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("alpha", [-0.1, 1.5, math.nan])
def test_an_alpha_that_is_no_fraction(alpha):
    base, sources = random_models(0, q=2)
    with pytest.raises(ValueError, match=r"alpha must be a fraction in \[0, 1\]"):
        opcm(base, sources, alpha=alpha)

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_models import random_models
from torch.testing import assert_close

from mloss.merging import average
from mloss.merging.methods.slerp import slerp

EPS = torch.finfo(torch.float64).eps
seeds = st.integers(0, 2**31)
KEYS = ("up.weight", "up.bias", "kernel")


def between(base, a, b, *, share, **options):
    return slerp(base, [a, b], weights=[1 - share, share], **options)


@given(seed=seeds, share=st.floats(0, 1))
def test_a_tensor_by_the_formula(seed, share):
    base, (a, b) = random_models(seed, q=2)
    merged = between(base, a, b, share=share)
    for key in KEYS:
        dot = math.fsum((a[key] * b[key]).flatten().tolist())
        lengths = [
            math.sqrt(math.fsum((x[key] ** 2).flatten().tolist())) for x in (a, b)
        ]
        cosine = dot / math.prod(lengths)
        if abs(cosine) > 0.9995:
            of_a, of_b = 1 - share, share
        else:
            angle = math.acos(cosine)
            of_a = math.sin((1 - share) * angle) / math.sin(angle)
            of_b = math.sin(share * angle) / math.sin(angle)
        # The cosine is off by some 50 roundings, the coefficients by that over sin^2,
        # which is at least 1e-3; the numbers are below 10.
        expected = of_a * a[key] + of_b * b[key]
        assert_close(merged[key], expected, rtol=0, atol=10 * 50 * EPS / 1e-3)


@given(seed=seeds, share=st.floats(0, 1))
def test_on_a_sphere_the_angle_is_shared_and_the_length_stays(seed, share):
    base, (a, b) = random_models(seed, q=2, shapes={"w": (3, 3)})
    a, b = ({"w": x["w"] / x["w"].norm(), "steps": x["steps"]} for x in (a, b))
    merged = between(base, a, b, share=share)["w"]
    cosine = (a["w"] * b["w"]).sum().item()
    if abs(cosine) < 0.99:
        # Some 50 roundings over sin^2 of at least 0.01, as above.
        assert math.isclose(merged.norm().item(), 1, abs_tol=1e4 * EPS)
        expected = math.cos(share * math.acos(cosine))
        assert math.isclose((merged * a["w"]).sum(), expected, abs_tol=1e4 * EPS)


@given(seed=seeds)
def test_the_ends_are_the_sources(seed):
    base, (a, b) = random_models(seed, q=2)
    assert all(torch.equal(between(base, a, b, share=0)[key], a[key]) for key in base)
    for key, value in between(base, a, b, share=1).items():
        # sin(angle) / sin(angle), and 0 times the other.
        assert_close(value, b[key], rtol=2 * EPS, atol=0)


@given(seed=seeds, share=st.floats(0, 1))
def test_the_straight_line_where_nearly_parallel(seed, share):
    base, (a, b) = random_models(seed, q=2)
    near = {key: a[key] + 1e-3 * b[key] if key in KEYS else a[key] for key in a}
    merged = between(base, a, near, share=share)
    expected = average(base, [a, near], weights=[1 - share, share])
    for key in KEYS:
        cosine = torch.nn.functional.cosine_similarity(
            a[key].flatten(), near[key].flatten(), dim=0
        )
        if cosine > 0.9996:
            # The average is of the same numbers, in float64 too.
            assert_close(merged[key], expected[key], rtol=0, atol=8 * 4 * EPS)


def test_threshold_zero_is_the_straight_line_and_one_the_arc():
    base = {"w": torch.zeros(2)}
    a, b = {"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])}
    line = slerp(base, [a, b], threshold=0)["w"]
    arc = slerp(base, [a, b], threshold=1)["w"]
    assert line.tolist() == [0.5, 0.5]
    assert_close(arc, torch.full((2,), math.sqrt(0.5)))


@pytest.mark.parametrize("second", [[0.0, 0.0], [2.0, 0.0], [-2.0, 0.0]])
def test_no_arc_between_zeros_and_along_one_line(second):
    base = {"w": torch.zeros(2)}
    a, b = {"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor(second)}
    merged = slerp(base, [a, b], threshold=1)["w"]
    assert merged.tolist() == ((a["w"] + b["w"]) / 2).tolist()


@pytest.mark.parametrize("q", [1, 3])
def test_it_goes_between_two_sources(q):
    base, sources = random_models(0, q=q)
    with pytest.raises(ValueError, match=f"slerp goes between two sources, got {q}"):
        slerp(base, sources)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan])
def test_a_threshold_that_is_no_cosine(threshold):
    base, sources = random_models(0, q=2)
    with pytest.raises(ValueError, match="threshold must be a cosine"):
        slerp(base, sources, threshold=threshold)

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mloss.weights import merging_weights, weighted_sum

EPS = torch.finfo(torch.float64).eps


@given(q=st.integers(1, 64))
def test_the_default_is_simple_averaging(q):
    assert merging_weights(None, q=q).tolist() == [1 / q] * q


@given(q=st.integers(1, 64), seed=st.integers(0, 2**31))
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_weights_summing_to_one_in_their_own_precision_are_accepted(dtype, q, seed):
    generator = torch.Generator().manual_seed(seed)
    exact = torch.rand(q, generator=generator, dtype=torch.float64).softmax(0)
    given_weights = exact.to(dtype)
    accepted = merging_weights(given_weights, q=q)
    assert accepted.dtype == torch.float64
    total = given_weights.double().sum()
    assert torch.equal(accepted, given_weights.double() / total)


def test_weights_rounded_to_float32_on_the_way_are_rescaled():
    rounded = (torch.arange(1.0, 12.0) / 66).tolist()
    rounded[0] += 9e-7
    accepted = merging_weights(rounded, q=11)
    # Eleven additions, and the rounding of each quotient.
    assert accepted.sum().item() == pytest.approx(1, abs=16 * EPS, rel=0)
    rounded[0] += 1e-6
    with pytest.raises(ValueError, match="sum to 1"):
        merging_weights(rounded, q=11)


@pytest.mark.parametrize(
    "weights", ["abc", ["a", "b"], {0.5: 1}, [0.5, [0.5]], torch.tensor([0.5j, 0.5])]
)
def test_weights_that_are_no_numbers(weights):
    with pytest.raises(TypeError, match="weights must be real numbers"):
        merging_weights(weights, q=2)


@pytest.mark.parametrize(
    ("weights", "complaint"),
    [
        ([0.5, 0.5], "each of the 3"),
        ([[0.2, 0.3, 0.5]], r"shape \(1, 3\)"),
        ([0.5, 0.6, -0.1], "non-negative"),
        ([0.5, float("nan"), 0.5], "finite"),
        ([0.5, float("inf"), 0.5], "finite"),
        ([0.3, 0.3, 0.3], "sum to 1"),
        ([0, 1, 1], "sum to 1"),
    ],
)
def test_weights_that_do_not_fit_are_named(weights, complaint):
    with pytest.raises(ValueError, match=f"weights must.*{complaint}"):
        merging_weights(weights, q=3)


def test_no_models_is_an_error():
    with pytest.raises(ValueError, match="q counts"):
        merging_weights(None, q=0)


def test_the_weighted_sum_needs_one_weight_for_each_term():
    weights = merging_weights([0.25, 0.75], q=2)
    terms = torch.tensor([[4.0, 8.0], [0.0, 4.0]])
    assert weighted_sum(weights, terms).tolist() == [1.0, 5.0]
    with pytest.raises(ValueError, match="zip"):
        weighted_sum(weights, terms[:1])

from itertools import combinations, pairwise

import pytest
import torch
from torch import nn
from torch.testing import assert_close

# torch.func.jvp/;
from mloss.curvature import second_derivative, second_order_gap
from mloss.inference import forward
from mloss.merging import average


def measured_gap(model, sources, data, weights):
    merged = average(sources[0], sources, weights=weights)
    with torch.no_grad():
        outputs = [forward(model, source, data) for source in sources]
        ensemble = sum(w * y for w, y in zip(weights, outputs, strict=True))
        return forward(model, merged, data) - ensemble


@pytest.mark.parametrize("method", ["forward", "differences"])
def test_exact_where_the_output_is_quadratic_in_the_parameters(method):
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5, bias=False), nn.Linear(5, 2)).double()
    sources = [
        {
            key: torch.randn(value.shape, generator=generator, dtype=torch.float64)
            for key, value in model.state_dict().items()
        }
        for _ in range(3)
    ]
    data = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    weights = [0.2, 0.3, 0.5]
    foretold = second_order_gap(
        model, sources, data=data, weights=weights, method=method
    )
    gap = measured_gap(model, sources, data, weights)
    # Outputs of some 10 units, each a sum of 15 products; differences of them are
    # divided by the square of a step of 1/256.
    rounding = 64 * 10 * torch.finfo(torch.float64).eps
    if method == "differences":
        rounding *= 256**2
    assert_close(foretold, gap, rtol=0, atol=rounding)
    assert gap.abs().max() > 0.1


@pytest.mark.parametrize(
    ("weights", "order"), [([0.3, 0.7], 1), ([0.5, 0.5], 2)], ids=["uneven", "equal"]
)
def test_relative_error_falls_with_the_step(digits, weights, order):
    model, data = digits.encoder(), digits.unlabelled(16)
    ends = [tuned.state for tuned in digits.experts(digits.recipe.learning_rates[1])]

    def relative_error(step):
        sources = [
            {key: v + step * (end[key] - v) for key, v in digits.base.items()}
            for end in ends[:2]
        ]
        gap = measured_gap(model, sources, data, weights)
        foretold = second_order_gap(model, sources, data=data, weights=weights)
        return (foretold - gap).norm() / gap.norm()

    errors = [relative_error(2.0**-halvings) for halvings in (3, 4, 5)]
    coarse, fine = (torch.log2(a / b) for a, b in pairwise(errors))
    # What is left of the next order halves too, so it is about the last change.
    assert abs(fine - order) <= 2 * abs(fine - coarse)
    assert abs(fine - coarse) < 0.25


def test_models_that_agree_have_no_gap(digits):
    model, data = digits.encoder(), digits.unlabelled(16)
    foretold = second_order_gap(model, [digits.base, digits.base], data=data)
    assert torch.equal(foretold, torch.zeros_like(foretold))


def test_one_model_is_refused(digits):
    with pytest.raises(ValueError, match="at least two models, got 1"):
        second_order_gap(digits.encoder(), [digits.base], data=digits.unlabelled(16))


def test_one_weight_of_one_has_no_gap(digits):
    a, b = (tuned.state for tuned in digits.fine_tunes[:2])
    foretold = second_order_gap(
        digits.encoder(), [a, b], data=digits.unlabelled(16), weights=[0, 1]
    )
    assert torch.equal(foretold, torch.zeros(16, 64, dtype=torch.float64))


def test_many_sources_are_the_sum_over_their_pairs(digits):
    model, data = digits.encoder(), digits.unlabelled(16)
    sources = [tuned.state for tuned in digits.fine_tunes[:4]]
    weights = [0.1, 0.2, 0.3, 0.4]
    foretold = second_order_gap(model, sources, data=data, weights=weights)
    centre = average(digits.base, sources, weights=weights)
    by_pair = sum(
        -weights[i]
        * weights[j]
        / 2
        * second_derivative(model, centre, data, first={k: a[k] - b[k] for k in centre})
        for (i, a), (j, b) in combinations(enumerate(sources), 2)
    )
    # Rounding of a few tens of operations in sequence, six times.
    eps = torch.finfo(torch.float64).eps
    assert (foretold - by_pair).norm() <= 6000 * eps * by_pair.norm()


def test_models_that_do_not_match_are_refused(digits):
    other = {**digits.base, "norm.bias": torch.zeros(3, dtype=torch.float64)}
    with pytest.raises(ValueError, match=r"'norm.bias' has shape"):
        second_order_gap(
            digits.encoder(), [digits.base, other], data=digits.unlabelled(16)
        )

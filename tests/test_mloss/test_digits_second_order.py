from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.func import functional_call, jvp
from torch.testing import assert_close

from mloss.digits.second_order import _STEP, second_order_gap
from mloss.inference import forward
from mloss.merging import average


def measured_gap(model, sources, data, weights):
    merged = average(sources[0], sources, weights=weights)
    with torch.no_grad():
        outputs = [forward(model, source, data) for source in sources]
        ensemble = sum(w * y for w, y in zip(weights, outputs, strict=True))
        return forward(model, merged, data) - ensemble


def test_exact_where_the_output_is_quadratic_in_the_parameters():
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
    foretold = second_order_gap(model, sources, data=data, weights=weights)
    gap = measured_gap(model, sources, data, weights)
    # Differences of outputs of some 10 units, each a sum of 15 products, over step^2.
    rounding = 64 * 10 * torch.finfo(torch.float64).eps / _STEP**2
    assert_close(foretold, gap, rtol=0, atol=rounding)
    assert gap.abs().max() > 0.1


class WrittenOutNorm(nn.Module):
    """LayerNorm from elementary operations, through which nested jvp is right."""

    def __init__(self, norm):
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x):
        centred = x - x.mean(dim=-1, keepdim=True)
        variance = centred.square().mean(dim=-1, keepdim=True)
        return centred / (variance + self.eps).sqrt() * self.weight + self.bias


def with_written_out_norms(model):
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.LayerNorm):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, WrittenOutNorm(module))
    return model


# torch.func.jvp scripts its own decompositions on first use.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize(("first", "second"), [(0, 4), (2, 5), (13, 16)])
def test_agrees_with_nested_forward_mode(digits, first, second):
    data = digits.unlabelled(32)
    a, b = (digits.fine_tunes[i].state for i in (first, second))
    centre = {key: (a[key] + b[key]) / 2 for key in a}
    step = {key: a[key] - b[key] for key in a}
    model = with_written_out_norms(digits.encoder())

    def output(state):
        return functional_call(model, state, (data,))

    def slope(state):
        return jvp(output, (state,), (step,))[1]

    exact = -jvp(slope, (centre,), (step,))[1].detach() / 8
    ours = second_order_gap(digits.encoder(), [a, b], data=data)
    assert (ours - exact).norm() <= 1e-6 * exact.norm()


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

import math

import pytest
import torch
from small_transformers import bert, near, small, tokens
from torch import nn
from torch.testing import assert_close

from mloss.digits.tasks import TASKS
from mloss.gap import gap
from mloss.merging import average
from mloss.merging.methods.fitted_coefficients import fitted_coefficients

EPS = torch.finfo(torch.float64).eps


class Square(nn.Module):
    """(theta x)^2, of one parameter."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, x):
        return (self.theta * x).square()


def states(*values):
    return [{"theta": torch.tensor([v], dtype=torch.float64)} for v in values]


def test_the_square_s_best_parameter_is_the_root_mean_square():
    base, *sources = states(1.0, 1.3, 0.8, 2.0)
    weights = [0.5, 0.3, 0.2]
    x = torch.linspace(-1, 2, 8, dtype=torch.float64)[:, None]
    squares = (
        w * s["theta"].item() ** 2 for w, s in zip(weights, sources, strict=True)
    )
    best = math.sqrt(sum(squares))
    merged = fitted_coefficients(
        base, sources, model=Square(), data=x, weights=weights, rounds=6
    )
    # Damping leaves a thousandth of the way each round, and rounding ends the search.
    assert merged["theta"].item() == pytest.approx(best, rel=1e-12)


def test_what_one_round_leaves_is_of_fourth_order():
    x = torch.linspace(-1, 2, 8, dtype=torch.float64)[:, None]

    def left(step, rounds):
        base, *sources = states(1.0, 1.0 + 3 * step, 1.0 - step)
        merged = fitted_coefficients(
            base, sources, model=Square(), data=x, rounds=rounds
        )
        return gap(merged, sources, x, model=Square()).mean

    # A thousandth of the gap is left by damping, which is of second order.
    for step in (0.2, 0.1):
        assert left(step, 1) < 0.002 * left(step, 0) + 10 * step**4
        assert left(step, 0) > step**2


def test_each_part_has_coefficients_of_its_own():
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(5, 5) for _ in range(3))).double()
    base, sources = model.state_dict(), near(model.state_dict(), q=2, step=0.5)
    x = torch.randn(200, 5, dtype=torch.float64)
    merges = [
        fitted_coefficients(base, sources, model=model, data=x, per=per)
        for per in ("block", "tensor")
    ]
    gaps = [
        gap(merged, sources, x, model=model).mean
        for merged in (average(base, sources), *merges)
    ]
    assert gaps[2] < gaps[1] < gaps[0]

    def coefficients(merged, key):
        vectors = torch.stack([(s[key] - base[key]).flatten() for s in sources], dim=1)
        found = torch.linalg.lstsq(
            vectors, (merged[key] - base[key]).flatten()[:, None]
        )
        assert_close(vectors @ found.solution, (merged[key] - base[key]).reshape(-1, 1))
        return found.solution

    by_block, by_tensor = (
        [coefficients(m, key) for key in ("1.weight", "1.bias")] for m in merges
    )
    assert_close(*by_block, rtol=0, atol=1e3 * EPS)
    assert (by_tensor[0] - by_tensor[1]).norm() > 1e-3


def test_no_round_is_the_average_and_one_source_is_returned():
    model = small(bert)
    base, sources = model.state_dict(), near(model.state_dict(), q=2, step=0.1)
    merged = fitted_coefficients(base, sources, model=model, data=tokens(), rounds=0)
    alone = fitted_coefficients(base, sources[:1], model=model, data=tokens())
    for key, value in average(base, sources).items():
        assert_close(merged[key], value, rtol=0, atol=100 * EPS)
        assert_close(alone[key], sources[0][key], rtol=0, atol=100 * EPS)


def test_a_tensor_of_two_names_stays_one():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
            self.last.weight = self.first.weight

        def forward(self, x):
            return self.last(torch.tanh(self.first(x)))

    torch.manual_seed(0)
    model = Tied().double()
    base = model.state_dict()
    sources = [
        s | {"last.weight": s["first.weight"]} for s in near(base, q=2, step=0.5)
    ]
    x = torch.randn(40, 4, dtype=torch.float64)
    merged = fitted_coefficients(base, sources, model=model, data=x)
    assert torch.equal(merged["first.weight"], merged["last.weight"])
    plain = average(base, sources)
    assert not torch.equal(merged["first.weight"], plain["first.weight"])


def test_eight_digits_experts_come_nearer_on_images_not_seen(digits):
    model, sources = digits.encoder(), [f.state for f in digits.experts(0.002)]
    split = digits.splits["test"]
    images = torch.cat(
        [task.transform(split.images[i :: len(TASKS)]) for i, task in enumerate(TASKS)]
    )
    merged = fitted_coefficients(
        digits.base, sources, model=model, data=digits.unlabelled(32)
    )
    before, after = (
        gap(state, sources, images, model=model).mean
        for state in (average(digits.base, sources), merged)
    )
    # By 29 % where docs/merging_by_theory.md was written.
    assert after < 0.85 * before


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"per": "layer"}, "per must be 'block' or 'tensor', got 'layer'"),
        ({"rounds": -1}, "rounds must be >= 0, got -1"),
        ({"data": torch.ones(1, 1)}, "data must hold a batch of two samples"),
        ({"data": torch.full((2, 1), 1e200, dtype=torch.float64)}, "infinity or a NaN"),
    ],
)
def test_a_bad_call(options, complaint):
    base, *sources = states(1.0, 1.2, 0.9)
    given = {"data": torch.ones(2, 1, dtype=torch.float64)} | options
    with pytest.raises(ValueError, match=complaint):
        fitted_coefficients(base, sources, model=Square(), **given)

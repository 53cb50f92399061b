import math
from itertools import pairwise

import pytest
import torch
from small_transformers import ARCHITECTURES, bert, near, small, tokens
from torch import nn
from torch.testing import assert_close

from mloss import find_sites, gap
from mloss.curvature import (
    ParameterGroup,
    explain_gap,
    parameter_groups,
    second_derivative,
    second_order_gap,
)
from mloss.merging import average

EPS = torch.finfo(torch.float64).eps
WEIGHTS = [0.2, 0.3, 0.5]


def family(build, batch, *, step=0.02):
    model, data = small(build), batch()
    return model, near(model.state_dict(), q=3, step=step), data


def shares_by_definition(model, sources, data, groups):
    """<M_gh, T> / <T, T> of every pair of groups, from each source's deviation."""
    centre = average(sources[0], sources, weights=WEIGHTS)
    deviations = [{k: s[k] - v for k, v in centre.items()} for s in sources]

    def form(first, second):
        return sum(
            -w
            / 2
            * second_derivative(
                model,
                centre,
                data,
                first={key: deviation[key] for key in first.keys},
                second={key: deviation[key] for key in second.keys},
            )
            for w, deviation in zip(WEIGHTS, deviations, strict=True)
        )

    parts = torch.stack([torch.stack([form(g, h) for h in groups]) for g in groups])
    total = parts.sum(dim=(0, 1))
    return (parts * total).sum(dim=(2, 3)) / total.square().sum()


def coarse(model, data):
    """One group a role, in two made-up blocks."""
    groups = parameter_groups(model, find_sites(model, data))
    roles = dict.fromkeys(group.role for group in groups)
    return [
        ParameterGroup(
            "bent" if role in ("activation", "norm") else "straight",
            role,
            tuple(key for g in groups if g.role == role for key in g.keys),
        )
        for role in roles
    ]


@pytest.mark.parametrize(("build", "batch"), ARCHITECTURES)
def test_shares_follow_their_definition(build, batch):
    model, sources, data = family(build, batch)
    groups = coarse(model, data)
    parts = explain_gap(
        model,
        sources,
        data=data,
        weights=WEIGHTS,
        groups=groups,
        between_blocks=True,
    )
    expected = shares_by_definition(model, sources, data, groups)
    # Rounding of a few hundred operations; Llama normalises in float32 by itself.
    single = build.__name__ == "llama"
    close = {"rtol": 0, "atol": 1e-4 if single else 1e4 * EPS}
    assert_close(parts.shares, expected.sum(dim=1), **close)
    assert_close(parts.within, expected.diagonal(), **close)
    places = torch.tensor([parts.blocks.index(g.block) for g in groups])
    blocks = torch.zeros(len(parts.blocks), len(places), dtype=torch.float64)
    blocks[places, torch.arange(len(places))] = 1
    assert_close(parts.between, blocks @ expected @ blocks.T, **close)
    for shares in (parts.shares, parts.between):
        assert shares.sum().item() == pytest.approx(1, rel=0, abs=close["atol"])


def test_sizes_are_those_of_the_gap_and_of_second_order():
    model, sources, data = family(bert, tokens)
    parts = explain_gap(model, sources, data=data, weights=WEIGHTS)
    merged = average(model, sources, weights=WEIGHTS)
    measured = gap(merged, sources, data, model=model, weights=WEIGHTS)
    foretold = second_order_gap(model, sources, data=data, weights=WEIGHTS)
    close = {"rel": 1e4 * EPS, "abs": 0}
    assert parts.gap == pytest.approx(measured.mean, **close)
    assert parts.second_order == pytest.approx(
        foretold.norm(dim=1).mean().item(), **close
    )
    assert (parts.samples, parts.between) == (3, None)


def test_the_remainder_falls_with_the_step(digits):
    model, data = digits.encoder(), digits.unlabelled(16)
    ends = [tuned.state for tuned in digits.fine_tunes[2:9:3]]

    def remainder(step):
        sources = [
            {key: v + step * (end[key] - v) for key, v in digits.base.items()}
            for end in ends
        ]
        return explain_gap(model, sources, data=data).remainder

    halvings = [remainder(2.0**-n) for n in (5, 6, 7)]
    orders = [math.log2(a / b) for a, b in pairwise(halvings)]
    # The gap itself is of second order and what is left of third, with fourth behind.
    assert abs(orders[1] - 1) <= 2 * abs(orders[1] - orders[0])
    assert abs(orders[1] - orders[0]) < 0.25


class TwoLayers(nn.Module):
    """x -> B A x, with a gain of its own that stays as it is."""

    def __init__(self):
        super().__init__()
        self.A = nn.Linear(3, 4, bias=False)
        self.B = nn.Linear(4, 2, bias=False)
        self.register_buffer("count", torch.tensor(7))

    def forward(self, x):
        return self.B(self.A(x))


def two_layers():
    torch.manual_seed(0)
    model = TwoLayers().double()
    sources = [
        {k: torch.randn_like(v) if v.is_floating_point() else v for k, v in s.items()}
        for s in [model.state_dict()] * 2
    ]
    groups = [ParameterGroup(name, "linear", (f"{name}.weight",)) for name in "AB"]
    return model, sources, groups, torch.randn(5, 3, dtype=torch.float64)


@pytest.mark.parametrize("method", ["forward", "differences"])
def test_a_linear_network_is_all_interaction(method):
    model, sources, groups, data = two_layers()
    parts = explain_gap(
        model, sources, data=data, groups=groups, between_blocks=True, method=method
    )
    # Outputs of a few units; differences of them are divided by 1/256 squared.
    close = {"rtol": 0, "atol": 64 * 256**2 * EPS}
    half = torch.tensor([0.5, 0.5], dtype=torch.float64)
    assert_close(parts.shares, half, **close)
    assert_close(parts.within, 0 * half, **close)
    assert_close(parts.between, torch.tensor([[0, 0.5], [0.5, 0]]).double(), **close)
    assert parts.remainder <= close["atol"]


def test_batches_count_as_their_samples():
    model, sources, _ = family(bert, tokens)
    data = tokens((5, 3, 2))
    apart = [
        {name: value[i : i + 1, :length] for name, value in data.items()}
        for i, length in enumerate((5, 3, 2))
    ]
    whole, pieces = (explain_gap(model, sources, data=d) for d in (data, apart))
    # Padding adds terms of weight zero to sums, which may be split otherwise.
    close = {"rtol": 0, "atol": 1e4 * EPS}
    assert_close(whole.shares, pieces.shares, **close)
    assert_close(whole.within, pieces.within, **close)
    for name in ("gap", "second_order", "remainder"):
        assert getattr(whole, name) == pytest.approx(getattr(pieces, name), rel=1e-10)


def test_refusals(digits):
    model, data = digits.encoder(), digits.unlabelled(16)
    a, b = (tuned.state for tuned in digits.fine_tunes[:2])
    with pytest.raises(ValueError, match="at least two models, got 1"):
        explain_gap(model, [a], data=data)
    with pytest.raises(ValueError, match="no second-order gap to explain"):
        explain_gap(model, [a, a], data=data)
    groups = parameter_groups(model, find_sites(model, data))
    with pytest.raises(ValueError, match=r"no other: 'norm.bias'"):
        explain_gap(model, [a, b], data=data, groups=groups[:-1])
    with pytest.raises(ValueError, match=r"'norm.weight' more than once"):
        explain_gap(model, [a, b], data=data, groups=[*groups, groups[-1]])

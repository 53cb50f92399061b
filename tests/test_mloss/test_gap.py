import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mloss import gap, merge

EPS = torch.finfo(torch.float64).eps


def family(seed, *, q, bend=nn.Tanh):
    torch.manual_seed(seed)
    models = [
        nn.Sequential(nn.Linear(3, 6), bend(), nn.Dropout(), nn.Linear(6, 2)).double()
        for _ in range(q)
    ]
    return models, torch.randn(13, 3, dtype=torch.float64)


def test_by_hand_over_uneven_batches_in_evaluation_mode():
    (merged, *sources), data = family(0, q=4)
    weights = [0.2, 0.3, 0.5]
    ours = gap(merged, sources, data.split(5), weights=weights)
    for model in (merged, *sources):
        model.eval()
    with torch.no_grad():
        outputs = [model(data) for model in sources]
        ensemble = sum(w * y for w, y in zip(weights, outputs, strict=True))
        distance = (merged(data) - ensemble).norm(dim=1)
    # Norms of sums of a few numbers below 4, averaged over 13 samples.
    close = {"abs": 128 * EPS, "rel": 0}
    assert ours.mean == pytest.approx(distance.mean().item(), **close)
    assert ours.stderr == pytest.approx(distance.std().item() / math.sqrt(13), **close)
    size = ensemble.norm(dim=1).mean()
    assert ours.relative == pytest.approx((distance.mean() / size).item(), **close)
    assert ours.samples == 13


def test_training_flags_stay():
    (merged, source), data = family(0, q=2)
    merged.train()
    merged[1].eval()
    gap(merged, [source], data)
    assert [m.training for m in merged.modules()] == [True, True, False, True, True]


def test_modules_and_state_dicts_give_the_same():
    (merged, *sources), data = family(1, q=3)
    states = [source.state_dict() for source in sources]
    by_state = gap(merged.state_dict(), states, data, model=merged)
    assert by_state == gap(merged, sources, data)


def test_sources_from_a_generator():
    (merged, *sources), data = family(1, q=3)
    assert gap(merged, iter(sources), data) == gap(merged, sources, data)


def test_a_model_is_no_distance_from_itself():
    (model,), data = family(2, q=1)
    ours = gap(model, [model], data)
    assert (ours.mean, ours.stderr, ours.relative) == (0, 0, 0)


def test_a_linear_layer_averages_as_it_ensembles():
    torch.manual_seed(0)
    sources = [nn.Linear(3, 2).double() for _ in range(4)]
    merged = merge(sources[0], sources, method="average")
    data = torch.randn(9, 3, dtype=torch.float64)
    # Four products of numbers below 4.
    assert gap(merged.state, sources, data).mean < 64 * EPS


def test_one_sample_has_no_standard_error():
    (merged, source), data = family(3, q=2)
    assert gap(merged, [source], data[:1]).stderr == math.inf


def test_outputs_of_more_axes_are_one_vector_a_sample():
    torch.manual_seed(0)
    merged, source = nn.Linear(3, 2), nn.Linear(3, 2)
    data = torch.randn(5, 4, 3)
    ours = gap(merged, [source], data)
    with torch.no_grad():
        distance = (
            (merged(data).double() - source(data).double()).flatten(1).norm(dim=1)
        )
    assert_close(ours.mean, distance.mean().item(), rtol=16 * EPS, atol=0)


class Summed(nn.Linear):
    def forward(self, x):
        return super().forward(x).sum()


class Pair(nn.Linear):
    def forward(self, x):
        return x, super().forward(x)


def test_a_bad_call_is_named():
    (merged, source), data = family(4, q=2)
    state = merged.state_dict()
    nan = {key: torch.full_like(value, math.nan) for key, value in state.items()}
    small, single = nn.Linear(3, 2), family(4, q=1)[0][0].float()
    (relu,), _ = family(4, q=1, bend=nn.ReLU)
    summed, pair = Summed(3, 2).double(), Pair(3, 2).double()
    cases = [
        (lambda: gap(merged, [source], []), ValueError, "data must hold at least one"),
        (lambda: gap(merged, [source], data[:0]), ValueError, "has no samples"),
        (lambda: gap(merged, [source], [(data, 1)]), TypeError, "batch 0 .* tuple"),
        (lambda: gap(merged, [], data), ValueError, "sources must hold at least one"),
        (lambda: gap(state, [state], data), ValueError, "model must give"),
        (lambda: gap(merged, [nan], data), ValueError, "infinity or a NaN"),
        (lambda: gap(merged, [small.state_dict()], data), ValueError, "'0.bias'"),
        (
            lambda: gap(small, [nn.Linear(3, 4).state_dict()], data),
            ValueError,
            r"'weight' has shape \(4, 3\)",
        ),
        (
            lambda: gap(merged, [source, relu], data),
            ValueError,
            "source 1 is another architecture than merged",
        ),
        (
            lambda: gap(merged, [source], data, model=relu),
            ValueError,
            "merged is another architecture than model",
        ),
        (
            lambda: gap(merged, [single], data),
            ValueError,
            r"'0.weight' has dtype .*float32 in source 0, .*float64 in merged",
        ),
        (lambda: gap(merged, [source], data[0]), ValueError, r"shape \[sample"),
        (lambda: gap(summed, [summed], data), ValueError, "one row for each of the 13"),
        (lambda: gap(pair, [pair], data), TypeError, "must return one tensor"),
        (
            lambda: gap(merged, [source], data, weights=[0.5]),
            ValueError,
            "weights must sum to 1",
        ),
    ]
    for call, error, complaint in cases:
        with pytest.raises(error, match=complaint):
            call()


@pytest.mark.gpu
def test_cpu_and_gpu_agree():
    (merged, *sources), data = family(5, q=3)
    on_cpu = gap(merged, sources, data)
    on_gpu = gap(merged.cuda(), [source.cuda() for source in sources], data)
    assert on_gpu.mean == pytest.approx(on_cpu.mean, rel=256 * EPS, abs=0)

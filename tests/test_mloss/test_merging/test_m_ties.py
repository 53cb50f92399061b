import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mloss import merge
from mloss.merging import m_ties, row_wise_ties, ties

EPS = torch.finfo(torch.float64).eps


def network():
    return nn.Sequential(
        *(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 5), nn.LayerNorm(5)),
        *(nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2)),
    ).double()


SITES = {"0": torch.nn.functional.gelu, "4": torch.relu}


def family(seed, *, q):
    """A base network and q perturbed copies of its state."""
    torch.manual_seed(seed)
    base = network()
    sources = [
        {k: v + 0.3 * torch.randn_like(v) for k, v in base.state_dict().items()}
        for _ in range(q)
    ]
    return base, sources, torch.randn(11, 3, dtype=torch.float64)


def keep(entries, rate):
    count = math.floor(rate * len(entries) + 0.5)
    order = sorted(range(len(entries)), key=lambda i: (-abs(entries[i]), i))
    return [x if i in order[:count] else 0.0 for i, x in enumerate(entries)]


def elect_pruned_sum(pruned, weights):
    """sum_i alpha_i ElectPruned(T_i), entry by entry."""
    merged = []
    for entries in zip(*pruned, strict=True):
        mass = sum(a * t for a, t in zip(weights, entries, strict=True))
        pairs = zip(weights, entries, strict=True)
        merged.append(sum(a * t for a, t in pairs if t * mass > 0))
    return merged


def algorithm_1(base, sources, data, weights, density, spread):
    """The printed algorithm, line by line, with loops over layers, nodes and models.

    It synchronises: each merged layer is written into every source (lines 24 to 27).
    """
    theta = {k: v.clone() for k, v in base.state_dict().items()}
    models = [{k: v.clone() for k, v in source.items()} for source in sources]
    for key, start in theta.items():
        if key.rsplit(".", 1)[0] in SITES:
            continue
        pruned = [keep((m[key] - start).flatten().tolist(), density) for m in models]
        step = torch.tensor(elect_pruned_sum(pruned, weights), dtype=torch.float64)
        theta[key] = start + step.view_as(start)
        for m in models:
            m[key] = theta[key]
    for layer, activation in SITES.items():
        position = int(layer)
        h = []
        for m in models:
            net = network()
            net.load_state_dict(m)
            with torch.no_grad():
                h.append(net[: position + 1](data))
        mean = sum(a * x for a, x in zip(weights, h, strict=True))
        outputs = sum(a * activation(x) for a, x in zip(weights, h, strict=True))
        loss = (activation(mean) - outputs).abs().mean(0).tolist()
        weight, bias = theta[f"{layer}.weight"], theta[f"{layer}.bias"]
        before = weight.clone(), bias.clone()
        for node, score in enumerate(loss):
            below = sum(other < score for other in loss)
            rank = below + (sum(other == score for other in loss) - 1) / 2
            rate = density - spread * rank / (len(loss) - 1)
            pruned = []
            for m in models:
                row = m[f"{layer}.weight"][node] - before[0][node]
                shift = m[f"{layer}.bias"][node] - before[1][node]
                pruned.append(keep([*row.tolist(), shift.item()], rate))
            step = elect_pruned_sum(pruned, weights)
            weight[node] += torch.tensor(step[:-1], dtype=torch.float64)
            bias[node] += step[-1]
        for m in models:
            m[f"{layer}.weight"], m[f"{layer}.bias"] = weight.clone(), bias.clone()
    return theta


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("density", "spread"), [(0.6, 0.4), (0.5, 0.0), (1.0, 1.0)])
def test_algorithm_1_line_by_line(seed, density, spread):
    base, sources, data = family(seed, q=3)
    weights = [0.5, 0.2, 0.3]
    ours = m_ties(
        base,
        sources,
        model=base,
        data=data.split(4),
        weights=weights,
        density=density,
        spread=spread,
    )
    expected = algorithm_1(base, sources, data, weights, density, spread)
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        # Sums of three products of numbers below 4.
        assert_close(ours[key], value, rtol=0, atol=32 * EPS)


def test_the_running_merge_is_what_the_next_site_sees():
    base, sources, _ = family(0, q=2)
    layers = {"0": ["0.weight", "0.bias"], "4": ["4.weight", "4.bias"]}
    seen = {}

    def scores(merged, layer):
        seen[layer] = dict(merged)
        return torch.arange(4 if layer == "0" else 3).double()

    merged = row_wise_ties(base, sources, layers=layers, scores=scores)
    start = base.state_dict()
    assert torch.equal(seen["0"]["0.weight"], start["0.weight"])
    assert torch.equal(seen["0"]["6.weight"], merged["6.weight"])
    assert torch.equal(seen["4"]["0.weight"], merged["0.weight"])
    assert torch.equal(seen["4"]["4.weight"], start["4.weight"])
    assert not torch.equal(merged["0.weight"], start["0.weight"])


def test_other_parameters_are_those_of_ties():
    base, sources, data = family(0, q=3)
    options = {"density": 0.4, "combine": "weighted_sum"}
    plain = ties(base, sources, **options)
    ours = m_ties(base, sources, model=base, data=data, spread=0.2, **options)
    assert torch.equal(ours["2.weight"], plain["2.weight"])
    assert not torch.equal(ours["0.weight"], plain["0.weight"])


@pytest.mark.parametrize("combine", ["weighted_sum", "disjoint_mean"])
def test_kept_whole_it_is_ties_kept_whole(combine):
    base, sources, data = family(0, q=3)
    options = {"density": 1.0, "combine": combine}
    ours = m_ties(base, sources, model=base, data=data, spread=0.0, **options)
    plain = ties(base, sources, **options)
    assert all(torch.equal(ours[key], plain[key]) for key in plain)


def test_a_convolution_keeps_whole_filters_by_channel():
    torch.manual_seed(0)
    base = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
    source = {k: v + torch.randn_like(v) for k, v in base.state_dict().items()}
    merged = m_ties(
        *(base, [source]),
        model=base,
        data=torch.randn(4, 2, 6, 6),
        density=1.0,
        spread=1.0,
    )
    # One source has no M-Loss, so all channels tie and keep half of 19 parameters.
    moved = (merged["0.weight"] != base.state_dict()["0.weight"]).flatten(1).sum(1)
    moved += merged["0.bias"] != base.state_dict()["0.bias"]
    assert moved.tolist() == [10, 10, 10]


def test_the_model_and_what_is_passed_in_are_left_alone():
    base, sources, data = family(0, q=2)
    base.train()
    before = {k: v.clone() for k, v in base.state_dict().items()}
    merged = m_ties(base, sources, model=base, data=data)
    for value in merged.values():
        value.zero_()
    assert all(torch.equal(before[k], v) for k, v in base.state_dict().items())
    assert base.training
    assert not any(m._forward_pre_hooks for m in base.modules())


def test_tied_parameters_are_refused():
    base, data = nn.Sequential(*(nn.Linear(3, 3), nn.ReLU()) * 2), torch.randn(4, 3)
    base[2] = nn.Linear(3, 3)
    base[2].weight = base[0].weight
    with pytest.raises(ValueError, match=r"'0\.weight' and '2\.weight' are tied"):
        m_ties(base, [base], model=base, data=data)


def test_sources_from_a_generator():
    base, sources, data = family(0, q=2)
    options = {"model": base, "data": data}
    expected = m_ties(base, sources, **options)
    for state in (
        m_ties(base, iter(sources), **options),
        merge(base, iter(sources), method="m_ties", **options).state,
    ):
        assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_a_source_with_another_activation_is_named():
    base, _, data = family(0, q=1)
    source = network()
    source[1] = nn.ReLU()
    with pytest.raises(ValueError, match="source 0 is another architecture than base"):
        merge(base, [source], method="m_ties", data=data)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"spread": 0.3}, r"spread must be in \[0, density\]"),
        ({"density": 1.5}, "density must be a fraction"),
        ({"data": []}, "data must hold at least one batch"),
        ({"data": torch.ones(0, 3)}, "batch 0 of data has no samples"),
        ({"model": nn.Linear(3, 4)}, "only the state has the key '0.bias'"),
    ],
)
def test_a_bad_call_is_named(options, complaint):
    base, sources, data = family(0, q=2)
    with pytest.raises(ValueError, match=complaint):
        m_ties(base, sources, **{"model": base, "data": data, **options})

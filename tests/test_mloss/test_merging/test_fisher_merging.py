import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from mloss.inference import evaluating
from mloss.merging import average, merge
from mloss.merging.from_samples.fisher_information import fisher_information
from mloss.merging.from_samples.task_data import own_tasks
from mloss.merging.methods.fisher import fisher

EPS = torch.finfo(torch.float64).eps


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 5)).double()


def family(seed=0, *, q=3, build=network):
    """A base, the states of q networks near it, and each one's own samples."""
    torch.manual_seed(seed)
    base = build()
    sources = [
        {k: v + 0.3 * torch.randn_like(v) for k, v in base.state_dict().items()}
        for _ in range(q)
    ]
    return base, sources, [torch.randn(6, 3).double() for _ in range(q)]


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def identities(q=3):
    return [nn.Identity()] * q


def score_squares(model, x):
    """sum_c p_c (d log p_c / d theta)^2 of one sample, one class at a time."""
    log_p = functional.log_softmax(model(x[None])[0], dim=0)
    total = [torch.zeros_like(p) for p in model.parameters()]
    for c in range(len(log_p)):
        model.zero_grad()
        log_p[c].backward(retain_graph=True)
        for t, p in zip(total, model.parameters(), strict=True):
            t += log_p[c].exp().detach() * p.grad**2
    return total


def output_squares(model, x):
    """sum_j (d y_j / d theta)^2 of one sample, one output at a time."""
    y = model(x[None])[0]
    total = [torch.zeros_like(p) for p in model.parameters()]
    for j in range(len(y)):
        model.zero_grad()
        y[j].backward(retain_graph=True)
        for t, p in zip(total, model.parameters(), strict=True):
            t += p.grad**2
    return total


def information_by_hand(state, data, squares):
    model = network()
    model.load_state_dict(state)
    each = [squares(model, x) for x in data]
    means = [sum(parts) / len(data) for parts in zip(*each, strict=True)]
    return dict(zip(state, means, strict=True))


def fisher_by_hand(sources, data, weights, squares, *, floor, normalize):
    """The authors' merge, one entry of the state at a time."""
    infos = [
        information_by_hand(s, d, squares) for s, d in zip(sources, data, strict=True)
    ]
    shares = []
    for weight, info in zip(weights, infos, strict=True):
        norm = math.sqrt(sum(f.square().sum().item() for f in info.values()))
        shares.append(weight / norm if normalize else weight)
    merged = {}
    for key in sources[0]:
        terms = [
            c * info[key].clamp(min=floor)
            for c, info in zip(shares, infos, strict=True)
        ]
        total = sum(t * s[key] for t, s in zip(terms, sources, strict=True))
        merged[key] = total / sum(terms)
    return merged


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("floor", [1e-6, 0.05])
@pytest.mark.parametrize("law", ["categorical", "gaussian"])
def test_the_merge_by_loops_over_samples_and_outputs(law, floor, normalize):
    base, sources, data = family()
    weights = [0.5, 0.2, 0.3]
    logits = law == "categorical"
    options = {"floor": floor, "normalize": normalize}
    ours = fisher(
        *(base, sources),
        model=base,
        task_data=[x.split(4) for x in data],
        generator=chance(),
        heads=identities() if logits else None,
        weights=weights,
        probes=None,
        **options,
    )
    squares = score_squares if logits else output_squares
    expected = fisher_by_hand(sources, data, weights, squares, **options)
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        # A gradient sums some 40 products below 4; its square, over the floor, is off
        # by twice that over sqrt(floor) >= 1e-3; and the weighted values are below 4.
        assert_close(ours[key], value, rtol=0, atol=4 * 320 * EPS / 1e-3)


class Words(nn.Module):
    """Named class scores for each token of a padded sequence."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, words, **_):
        return {"logits": self.net(words)}


def test_each_real_token_is_a_prediction():
    _, (state, *_), (x, *_) = family()
    model = Words()
    lengths = torch.tensor([3, 1, 2])
    mask = (torch.arange(3) < lengths[:, None]).long()
    words = torch.randn(3, 3, 3).double()
    words[mask.bool()] = x
    named = {f"net.{key}": value for key, value in state.items()}
    (task,) = own_tasks([{"words": words, "attention_mask": mask}], q=1)
    with evaluating(model):
        ours = fisher_information(model, named, task, probes=None, generator=chance())
    for key, value in information_by_hand(state, x, score_squares).items():
        assert_close(ours[f"net.{key}"], value, rtol=0, atol=400 * EPS)


@pytest.mark.parametrize("heads", [identities(1), None])
def test_random_probes_are_right_on_average(heads):
    base, (state, *_), (x, *_) = family()
    (task,) = own_tasks([x], heads, q=1)
    runs, generator = 600, chance()
    with evaluating(base):
        draws = [
            fisher_information(base, state, task, probes=1, generator=generator)
            for _ in range(runs)
        ]
        exact = fisher_information(base, state, task, probes=None, generator=generator)
    for key, value in exact.items():
        each = torch.stack([draw[key] for draw in draws])
        stderr = each.std(dim=0) / runs**0.5
        assert (stderr <= 0.1 * value + EPS).all()
        assert ((each.mean(dim=0) - value).abs() <= 5 * stderr + 64 * EPS).all()


def test_more_probes_are_the_mean_of_single_ones():
    base, (state, *_), (x, *_) = family()
    (task,) = own_tasks([x.split(4)], identities(1), q=1)
    with evaluating(base):
        many, one = (
            fisher_information(base, state, task, probes=k, generator=chance())
            for k in (400, 1)
        )
        exact = fisher_information(base, state, task, probes=None, generator=chance())
    off = [
        torch.cat([(f[k] - exact[k]).flatten() for k in exact]).norm()
        for f in (many, one)
    ]
    # 20 times nearer, give or take: a factor of 5 is left for the single draw's luck.
    assert off[0] < off[1] / 4


@pytest.mark.parametrize("probes", [2, None])
def test_one_source_and_equal_sources_are_returned(probes):
    base, (source, *_), data = family()
    for q in (1, 3):
        merged = fisher(
            *(base, [source] * q),
            model=base,
            task_data=data[:q],
            generator=chance(),
            probes=probes,
        )
        assert all(torch.equal(merged[key], source[key]) for key in source)


def test_a_source_of_weight_zero_does_not_count():
    base, sources, data = family()
    options = {"model": base, "generator": chance()}
    two = fisher(base, sources[:2], task_data=data[:2], **options)
    options["generator"] = chance()
    three = fisher(base, sources, task_data=data, weights=[0.5, 0.5, 0], **options)
    assert all(torch.equal(two[key], three[key]) for key in two)


def test_a_source_that_knows_is_followed():
    """Where only one source's outputs depend on an entry, its value is taken."""
    base = nn.Linear(2, 1, bias=False).double()
    sources = [
        {"weight": torch.tensor([[float(i), 10.0 * i]]).double()} for i in (1, 2)
    ]
    data = [torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[0.0, 1.0]]).double()]
    merged = fisher(
        base, sources, model=base, task_data=data, generator=chance(), floor=1e-12
    )
    assert_close(
        merged["weight"], torch.tensor([[1.0, 20.0]]).double(), rtol=1e-11, atol=0
    )


def test_nothing_passed_in_is_changed_or_shared():
    base, sources, data = family()
    base.train()
    states = [dict(base.state_dict()), *sources]
    before = [{k: v.clone() for k, v in state.items()} for state in states]
    merged = fisher(base, sources, model=base, task_data=data, generator=chance())
    for value in merged.values():
        value.zero_()
    for state, copy in zip(states, before, strict=True):
        assert all(torch.equal(state[key], copy[key]) for key in copy)
        assert not any(value.requires_grad for value in state.values())
    assert base.training
    assert all(p.requires_grad and p.grad is None for p in base.parameters())


def test_the_same_seed_gives_the_same_merge():
    base, sources, data = family()
    options = {"model": base, "task_data": data}
    first, again, other = (
        fisher(base, sources, generator=chance(seed), **options) for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
        self.norm = nn.BatchNorm1d(6)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.norm(self.head(self.embed(ids)))


def test_tied_parameters_stay_tied_and_buffers_are_averaged():
    torch.manual_seed(0)
    model = Tied()
    sources = [
        {k: v + 0.1 if "running" in k else v for k, v in Tied().state_dict().items()}
        for _ in range(2)
    ]
    data = [torch.randint(6, (9,)) for _ in range(2)]
    merged = fisher(model, sources, model=model, task_data=data, generator=chance())
    mean = average(model, sources)
    assert torch.equal(merged["head.weight"], merged["embed.weight"])
    assert not torch.allclose(merged["head.weight"], mean["head.weight"])
    for buffer in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(merged[f"norm.{buffer}"], mean[f"norm.{buffer}"])


def test_a_tied_parameter_is_one_however_often_it_is_used():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)).double()
    model[1].weight = model[0].weight
    ids = torch.randint(6, (5,))
    (task,) = own_tasks([ids], identities(1), q=1)
    with evaluating(model):
        ours = fisher_information(
            model, model.state_dict(), task, probes=None, generator=chance()
        )
    expected = sum(score_squares(model, i)[0] for i in ids)
    assert torch.equal(ours["0.weight"], ours["1.weight"])
    assert_close(ours["0.weight"], expected / 5, rtol=0, atol=400 * EPS)


def test_a_tied_parameter_counts_once_in_the_norm():
    torch.manual_seed(0)
    model, *each = (Tied() for _ in range(3))
    sources = [dict(m.state_dict()) for m in each]
    # The second source is sharper, so that what is tied has another part in its norm.
    sources[1]["norm.weight"] = 3 * sources[1]["norm.weight"]
    data = [torch.randint(6, (9,)) for _ in range(2)]
    options = {"probes": None, "floor": 1e-12}
    merged = fisher(
        model, sources, model=model, task_data=data, generator=chance(), **options
    )
    shares = []
    with evaluating(model):
        for state, task in zip(sources, own_tasks(data, q=2), strict=True):
            info = fisher_information(
                model, state, task, probes=None, generator=chance()
            )
            once = [f for key, f in info.items() if key != "head.weight"]
            norm = torch.cat([f.flatten() for f in once]).norm()
            shares.append(info["embed.weight"].clamp(min=1e-12) / norm)
    expected = sum(
        c * s["embed.weight"].double() for c, s in zip(shares, sources, strict=True)
    ) / sum(shares)
    # Summed in float64 in both, and rounded to float32.
    half_an_ulp = torch.finfo(torch.float32).eps / 2
    assert_close(merged["embed.weight"].double(), expected, rtol=half_an_ulp, atol=1e-7)


def test_a_source_whose_outputs_ignore_its_parameters_is_named():
    base, sources, data = family(q=2)
    zero = {key: torch.zeros_like(value) for key, value in sources[1].items()}
    given = {"model": base, "task_data": data, "generator": chance()}
    heads = [nn.Identity(), lambda y: y[:, :1]]
    with pytest.raises(ValueError, match="the outputs of source 1 do not depend"):
        fisher(base, [sources[0], zero], heads=heads, **given)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"probes": 0}, "probes must be at least 1"),
        ({"floor": 0.0}, "floor must be positive"),
        ({"floor": math.nan}, "floor must be positive"),
        ({"task_data": None}, "task_data must be given"),
        ({"task_data": [torch.ones(1, 3)]}, "each of the 2 source models, got 1"),
        ({"heads": [abs]}, "heads must hold one entry for each of the 2"),
        ({"model": nn.Linear(3, 4)}, "only the state has the key"),
    ],
)
def test_a_bad_call_is_named(options, complaint):
    base, sources, data = family(q=2)
    given = {"model": base, "task_data": data, "generator": chance(), **options}
    with pytest.raises(ValueError, match=complaint):
        merge(base.state_dict(), sources, method="fisher", **given)


def test_a_seed_for_a_generator_is_named():
    base, sources, data = family()
    with pytest.raises(TypeError, match=r"generator must be .*Generator, got int"):
        fisher(base, sources, model=base, task_data=data, generator=0)

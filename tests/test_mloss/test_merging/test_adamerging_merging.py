import math

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close

from mloss.inference import evaluating
from mloss.merging import merge, task_arithmetic
from mloss.merging.from_samples.least_entropy import Combination, least_entropy
from mloss.merging.from_samples.task_data import own_tasks
from mloss.merging.methods.adamerging import adamerging

EPS = torch.finfo(torch.float64).eps


def network():
    return nn.Sequential(nn.Linear(3, 6), nn.GELU(), nn.Linear(6, 4)).double()


def family(seed=0, *, q=3):
    """A base, q sources, each one's two batches, and a head for each."""
    torch.manual_seed(seed)
    base = network()
    sources = [
        {k: v + torch.randn_like(v) for k, v in base.state_dict().items()}
        for _ in range(q)
    ]
    data = [torch.randn(12, 3).double().split(8) for _ in range(q)]
    return base, sources, {"task_data": data, "heads": identities(q)}


def identities(q=3):
    return [nn.Identity()] * q


def entropy(logits):
    p = logits.softmax(dim=1)
    return -(p * p.log()).sum(dim=1).mean()


def by_hand(base, sources, data, weights, *, layerwise, steps, rate, initial):
    """One graph from the coefficients to the entropies, as the authors write it."""
    start = {key: value.detach() for key, value in base.state_dict().items()}
    rows = len(start) if layerwise else 1
    raw = torch.full((rows, len(sources)), initial, dtype=torch.float64)
    optimiser = torch.optim.Adam([raw.requires_grad_()], lr=rate)

    def merged():
        held = raw.clamp(0, 1)
        return {
            key: value
            + sum(
                held[j if layerwise else 0, i] * (source[key] - value)
                for i, source in enumerate(sources)
            )
            for j, (key, value) in enumerate(start.items())
        }

    for step in range(steps):
        loss = sum(
            len(sources) * w * entropy(functional_call(base, merged(), task[step % 2]))
            for w, task in zip(weights, data, strict=True)
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {key: value.detach() for key, value in merged().items()}


@pytest.mark.parametrize("granularity", ["layer", "task"])
@pytest.mark.parametrize("initial", [0.3, 0.95])
def test_the_descent_written_as_one_graph(granularity, initial):
    base, sources, options = family()
    weights, steps, rate = [0.5, 0.2, 0.3], 12, 0.05
    ours = adamerging(
        *(base, sources),
        model=base,
        weights=weights,
        granularity=granularity,
        steps=steps,
        learning_rate=rate,
        initial=initial,
        **options,
    )
    expected = by_hand(
        *(base, sources, options["task_data"], weights),
        layerwise=granularity == "layer",
        steps=steps,
        rate=rate,
        initial=initial,
    )
    # A gradient sums some 200 products below 16; where it is as small as 1e-3, Adam's
    # steps, the rate at most, are off by that over 1e-3, times 12 steps, times 3 task
    # vectors below 4.
    for key, value in expected.items():
        within = 200 * 16 * EPS / 1e-3 * rate * steps * 3 * 4
        assert_close(ours[key], value, rtol=0, atol=within)


@pytest.mark.parametrize("rows", [4, 1])
def test_coefficients_stay_in_range_and_lower_the_entropy(rows):
    base, sources, options = family()
    tasks = own_tasks(q=3, **options)

    def mean_entropy(state):
        with torch.no_grad():
            logits = functional_call(
                base, state, torch.cat(sum(options["task_data"], ()))
            )
        return entropy(logits)

    combination = Combination.of(
        base, base.state_dict(), sources, weights=torch.full((3,), 1 / 3).double()
    )
    start = torch.full((rows, 3), 0.3)
    with evaluating(base):
        learned = least_entropy(
            *(base, combination, tasks),
            initial=start,
            shares=[1.0] * 3,
            steps=60,
            learning_rate=0.05,
        )
    before = combination.whole(combination.at(start.expand(4, 3)))
    after = combination.whole(combination.at(learned))
    assert learned.shape == (4, 3)
    assert torch.unique(learned, dim=0).shape == (rows, 3)
    assert 0 <= learned.min() < learned.max() <= 1
    assert mean_entropy(after) < 0.5 * mean_entropy(before)


def test_before_the_first_step_it_is_task_arithmetic():
    base, sources, options = family()
    ours = adamerging(base, sources, model=base, steps=0, initial=0.4, **options)
    plain = task_arithmetic(base, sources, scale=3 * 0.4)
    for key, value in plain.items():
        # Sums of four numbers below 8, of either side's own rounding.
        assert_close(ours[key], value, rtol=0, atol=64 * EPS)


def test_a_task_of_weight_zero_is_not_looked_at():
    base, sources, options = family()
    given = {"weights": [0.5, 0.5, 0.0], "steps": 3, "learning_rate": 0.1}
    first = adamerging(base, sources, model=base, **given, **options)
    options["task_data"][2] = torch.randn(5, 3).double()
    second = adamerging(base, sources, model=base, **given, **options)
    assert all(torch.equal(first[key], second[key]) for key in first)


class Classifier(nn.Module):
    """Named logits, of a layer whose weight is that of the first."""

    def __init__(self):
        super().__init__()
        self.inner, self.tied = nn.Linear(3, 3), nn.Linear(3, 3)
        self.tied.weight = self.inner.weight
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        return {"logits": self.tied(self.norm(self.inner(x)).tanh())}


def test_named_logits_need_no_heads_and_all_but_parameters_is_averaged():
    torch.manual_seed(0)
    model, *sources = (Classifier() for _ in range(3))
    sources[0].norm.running_mean += 1
    data = [torch.randn(4, 3) for _ in sources]
    given = {"model": model, "task_data": data, "learning_rate": 0.1}
    before, after = (adamerging(model, sources, steps=n, **given) for n in (0, 5))
    assert torch.equal(after["inner.weight"], after["tied.weight"])
    assert not torch.equal(after["inner.weight"], before["inner.weight"])
    assert not torch.equal(after["tied.bias"], before["tied.bias"])
    assert after["norm.running_mean"].tolist() == [0.5, 0.5, 0.5]
    assert after["norm.num_batches_tracked"].item() == 0
    tensors = [*after.values(), *model.state_dict().values()]
    own = {value.data_ptr() for value in tensors}
    assert len(own) == len(tensors) - 1  # the model's own two names of one weight


def test_nothing_passed_in_is_changed_or_shared():
    base, sources, options = family()
    base.train()
    states = [dict(base.state_dict()), *sources]
    before = [{k: v.clone() for k, v in state.items()} for state in states]
    merged = adamerging(base, sources, model=base, steps=2, **options)
    for value in merged.values():
        value.zero_()
    for state, copy in zip(states, before, strict=True):
        assert all(torch.equal(state[key], copy[key]) for key in copy)
        assert not any(value.requires_grad for value in state.values())
    assert base.training
    assert all(p.requires_grad and p.grad is None for p in base.parameters())


def test_embeddings_without_heads_are_refused():
    base, sources, options = family()
    options["heads"] = None
    with pytest.raises(ValueError, match="no class logits: heads must be given"):
        adamerging(base, sources, model=base, **options)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"granularity": "block"}, "granularity must be 'layer' or 'task'"),
        ({"steps": -1}, "steps must not be negative"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"initial": math.nan}, r"initial must be in \[0, 1\]"),
        ({"initial": 1.5}, r"initial must be in \[0, 1\]"),
        ({"task_data": None}, "task_data must be given"),
        ({"heads": identities(1)}, "heads must hold one entry for each of the 2"),
        ({"model": nn.Linear(3, 4)}, "only the state has the key"),
    ],
)
def test_a_bad_call_is_named(options, complaint):
    base, sources, given = family(q=2)
    given = {"model": base, **given, **options}
    with pytest.raises(ValueError, match=complaint):
        merge(base.state_dict(), sources, method="adamerging", **given)

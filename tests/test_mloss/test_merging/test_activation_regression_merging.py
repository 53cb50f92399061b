import math

import pytest
import torch
from small_transformers import bert, llama, near, small, tokens
from torch import nn
from torch.testing import assert_close

from mloss.digits.tasks import TASKS
from mloss.gap import gap
from mloss.inference import evaluating, forward
from mloss.merging import average, ties
from mloss.merging.from_samples.layer_regression import regressed
from mloss.merging.methods.activation_regression import activation_regression

EPS = torch.finfo(torch.float64).eps


def network(*layers):
    torch.manual_seed(0)
    return nn.Sequential(*layers).double()


def fine_tunes(model, *, q=2, step=0.3):
    torch.manual_seed(1)
    return near(model.state_dict(), q=q, step=step)


def inputs(count, features):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, features, generator=generator, dtype=torch.float64)


def test_two_linear_layers_become_the_ensemble():
    model = network(nn.Linear(4, 5, bias=False), nn.Linear(5, 3, bias=False))
    sources = fine_tunes(model, q=3)
    weights = [0.5, 0.3, 0.2]
    x = inputs(60, 4)
    merged = activation_regression(
        model.state_dict(),
        sources,
        model=model,
        data=x,
        weights=weights,
        ridge=1e-9,
    )
    plain = average(model.state_dict(), sources, weights=weights)
    before, after = (
        gap(state, sources, inputs(9, 4), model=model, weights=weights).relative
        for state in (plain, merged)
    )
    # A ridge of r leaves about r of what is fitted, times the inputs' condition.
    assert after < 1e-7 < 1e-2 < before
    assert_close(merged["0.weight"], plain["0.weight"], rtol=0, atol=1e3 * EPS)


def test_an_activation_between_them_is_made_up_for_in_part():
    model = network(nn.Linear(4, 20), nn.ReLU(), nn.Linear(20, 3))
    sources = fine_tunes(model)
    x, others = inputs(400, 4), inputs(100, 4) + 0.01
    merged = activation_regression(model.state_dict(), sources, model=model, data=x)
    before, after = (
        gap(state, sources, others, model=model).mean
        for state in (average(model.state_dict(), sources), merged)
    )
    assert after < 0.8 * before


def by_hand(model, sources, x, *, ridge):
    """Layer after layer, every network run from the start for each."""
    merged = average(model.state_dict(), sources)
    for name in ("0", "2", "4"):

        def entering(state, depth=int(name)):
            with evaluating(model):
                return forward(model[:depth], head(state, depth), x) if depth else x

        aim = torch.stack(
            [entering(s) @ s[f"{name}.weight"].T + s[f"{name}.bias"] for s in sources]
        ).mean(0)
        a = entering(merged)
        lack = aim - a @ merged[f"{name}.weight"].T - merged[f"{name}.bias"]
        cost = (ridge * a.square().sum() / a.shape[1]).sqrt()
        features = torch.cat([a, torch.ones(len(a), 1).double()], dim=1)
        own = torch.eye(a.shape[1] + 1).double() * cost
        own[-1] = 0
        step = torch.linalg.lstsq(
            torch.cat([features, own]),
            torch.cat([lack, lack.new_zeros(len(own), lack.shape[1])]),
        ).solution
        merged[f"{name}.weight"] += step[:-1].T
        merged[f"{name}.bias"] += step[-1]
    return merged


def head(state, layers):
    return {k: v for k, v in state.items() if int(k.split(".")[0]) < layers}


def test_each_layer_is_fitted_behind_those_that_have_changed():
    model = network(
        nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 3)
    )
    sources, x = fine_tunes(model), inputs(40, 4)
    merged = activation_regression(
        model.state_dict(), sources, model=model, data=[x[:13], x[13:]], ridge=0.1
    )
    for key, value in by_hand(model, sources, x, ridge=0.1).items():
        # Gram matrices of condition 1e3, in three layers.
        assert_close(merged[key], value, rtol=0, atol=1e5 * EPS)


@pytest.mark.parametrize("build", [bert, llama])
def test_padding_does_not_count(build):
    model = small(build)
    base, sources = model.state_dict(), near(model.state_dict(), q=2, step=0.1)
    batch = tokens()
    alone = [
        {name: value[i : i + 1, :n] for name, value in batch.items()}
        for i, n in enumerate(batch["attention_mask"].sum(dim=1))
    ]
    # The second sample twice, as a batch must hold two to be halved.
    alone[1] = {name: torch.cat([v, v]) for name, v in alone[1].items()}
    doubled = {name: v[[0, 1, 1, 2]] for name, v in batch.items()}
    padded, apart = (
        activation_regression(base, sources, model=model, data=data, ridge=0.5)
        for data in (doubled, alone)
    )
    for key, value in padded.items():
        assert_close(apart[key], value, rtol=0, atol=1e5 * EPS)


def test_half_precision_is_fitted_in_float32_and_rounded_once():
    model = network(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).bfloat16()
    sources = [
        {key: value.bfloat16() for key, value in source.items()}
        for source in fine_tunes(model)
    ]
    x = inputs(80, 4).bfloat16()
    options = {"model": model, "data": x, "ridge": 0.1}
    merged = activation_regression(model.state_dict(), sources, **options)
    assert all(value.dtype == torch.bfloat16 for value in merged.values())
    before, after = (
        gap(state, sources, x, model=model).mean
        for state in (average(model.state_dict(), sources), merged)
    )
    assert after < 0.8 * before


def test_a_stiff_ridge_leaves_the_bias_to_put_means_right():
    model = network(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    sources, x = fine_tunes(model), inputs(40, 4)
    merged = activation_regression(
        model.state_dict(), sources, model=model, data=x, ridge=1e12
    )
    plain = average(model.state_dict(), sources)
    assert_close(merged["2.weight"], plain["2.weight"], rtol=0, atol=1e-10)
    assert not torch.equal(merged["2.bias"], plain["2.bias"])
    with evaluating(model):
        each = torch.stack([forward(model, s, x) for s in sources]).mean(0)
        off = (forward(model, merged, x) - each).mean(0)
    assert off.norm() < 1e-10


def test_what_does_not_help_samples_held_out_is_not_fitted():
    class Table(nn.Module):
        """Looks its input up: what one sample shows says nothing of another."""

        def __init__(self):
            super().__init__()
            self.table, self.read = nn.Embedding(8, 8), nn.Linear(8, 3, bias=False)

        def forward(self, ids):
            return self.read(self.table(ids))

    torch.manual_seed(0)
    model = Table().double()
    base = model.state_dict() | {"table.weight": torch.eye(8, dtype=torch.float64)}
    sources = [
        base | {"table.weight": s["table.weight"]} for s in near(base, q=2, step=1.0)
    ]
    sources = [
        s | {"read.weight": near(base, q=1, step=1.0)[0]["read.weight"]}
        for s in sources
    ]
    own = average(base, sources) | {"table.weight": base["table.weight"]}
    ids = torch.arange(8)
    with evaluating(model):
        state, fits = regressed(
            model,
            own,
            sources,
            [ids],
            layers=["read"],
            weights=torch.full((2,), 0.5, dtype=torch.float64),
            ridge=None,
        )
    # One-hot inputs: of a sample held out nothing is known.
    assert fits["read"].ridge is None
    assert (fits["read"].fitted, fits["read"].held_out) == (1.0, 1.0)
    assert torch.equal(state["read.weight"], own["read.weight"])


def test_it_corrects_any_other_merge_in_the_layers_asked_for():
    model = small(bert)
    base, sources = model.state_dict(), near(model.state_dict(), q=2, step=0.3)
    merged = activation_regression(
        base,
        sources,
        model=model,
        data=tokens(),
        of="ties",
        of_options={"density": 0.5},
        layers="after_activations",
        ridge=1.0,
    )
    plain = ties(base, sources, density=0.5)
    changed = [key for key in plain if not torch.equal(plain[key], merged[key])]
    behind = [f"encoder.layer.{i}.output.dense" for i in (0, 1)]
    assert changed == [f"{name}.{p}" for name in behind for p in ("weight", "bias")]


def test_a_layer_without_an_axis_of_samples_stays():
    class Shifted(nn.Module):
        """A network that adds what it makes of a table, whatever the input."""

        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(1, 4))
            self.shift, self.read = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.read(torch.tanh(x + self.shift(self.table)))

    model = network(Shifted())[0]
    base, sources = model.state_dict(), fine_tunes(model)
    merged = activation_regression(base, sources, model=model, data=inputs(40, 4))
    plain = average(base, sources)
    changed = [key for key in plain if not torch.equal(plain[key], merged[key])]
    assert changed == ["read.weight", "read.bias"]


def test_a_model_that_is_one_layer():
    model = network(nn.Linear(4, 3))[0]
    sources = fine_tunes(model)
    merged = activation_regression(
        model.state_dict(), sources, model=model, data=inputs(40, 4)
    )
    # The average is the ensemble: nothing is left to fit but rounding.
    for key, value in average(model.state_dict(), sources).items():
        assert_close(merged[key], value, rtol=0, atol=1e3 * EPS)


def test_a_model_that_is_one_layer_makes_up_for_another_merge():
    model = network(nn.Linear(4, 3))[0]
    sources = fine_tunes(model)
    merged = activation_regression(
        *(model.state_dict(), sources),
        model=model,
        data=inputs(60, 4),
        of="task_arithmetic",
        of_options={"scale": 0.5},
        ridge=1e-9,
    )
    for key, value in average(model.state_dict(), sources).items():
        # A ridge of r leaves about r of the step, times the inputs' condition.
        assert_close(merged[key], value, rtol=0, atol=1e-7)


def test_it_does_not_depend_on_the_number_of_threads():
    # With two threads and without `one_thread` they differ in their last bits.
    model = network(nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 64))
    sources = fine_tunes(model)
    x, merges = inputs(1280, 32), []
    before = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        merges.append(
            activation_regression(
                model.state_dict(), sources, model=model, data=x, ridge=0.1
            )
        )
    torch.set_num_threads(before)
    first, second = merges
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_samples_that_are_not_finite_are_named_with_the_layer():
    model = network(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    x = inputs(8, 4)
    x[2, 1] = torch.inf
    with pytest.raises(ValueError, match="enters the layer '0' holds a NaN or an inf"):
        activation_regression(
            model.state_dict(), fine_tunes(model), model=model, data=x
        )


def test_one_source_is_returned():
    model = small(bert)
    (source,) = near(model.state_dict(), q=1, step=0.1)
    merged = activation_regression(
        model.state_dict(), [source], model=model, data=tokens()
    )
    for key, value in source.items():
        assert_close(merged[key], value, rtol=0, atol=100 * EPS)


def test_eight_digits_experts_come_nearer_on_images_not_seen(digits):
    model, sources = digits.encoder(), [f.state for f in digits.experts(0.002)]
    split = digits.splits["test"]
    images = torch.cat(
        [task.transform(split.images[i :: len(TASKS)]) for i, task in enumerate(TASKS)]
    )
    merged = activation_regression(
        digits.base, sources, model=model, data=digits.unlabelled(128)
    )
    before, after = (
        gap(state, sources, images, model=model).mean
        for state in (average(digits.base, sources), merged)
    )
    # By 17 % where docs/merging_by_theory.md was written.
    assert after < 0.9 * before


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"ridge": 0.0}, "ridge must be finite and at least 1e-09, got 0.0"),
        ({"ridge": math.inf}, "ridge must be finite and at least 1e-09, got inf"),
        ({"layers": "some"}, "layers must be 'all' or 'after_activations', got 'some'"),
        ({"data": torch.ones(1, 4, dtype=torch.float64)}, "a batch of two samples"),
    ],
)
def test_a_bad_call(options, complaint):
    model = network(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    given = {"data": inputs(4, 4)} | options
    with pytest.raises(ValueError, match=complaint):
        activation_regression(
            model.state_dict(), fine_tunes(model), model=model, **given
        )

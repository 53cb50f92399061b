from collections import Counter

import pytest
import torch
from small_transformers import bert, clip, near, pixels, small, tokens
from torch import nn
from torch.testing import assert_close

from mloss.batches import real_tokens
from mloss.merging import average, merge
from mloss.merging.methods import regmean as regmean_module
from mloss.merging.methods.regmean import regmean
from mloss.merging.methods.regmean_plus_plus import regmean_plus_plus

EPS = torch.finfo(torch.float64).eps
METHODS = [regmean, regmean_plus_plus]
# Conditions below 1e4 (unit diagonals, the factor and few dimensions) in numbers below
# 10, both in our solve and in the transcription's inverse.
WITHIN = 1e5 * EPS


def family(build, batch, *, q=3):
    """A model, q sources near it, and two batches of each source's own."""
    model = small(build)
    sources = near(model.state_dict(), q=q, step=0.2)
    return model, sources, [[batch(), batch()] for _ in range(q)]


def network():
    return nn.Sequential(
        *(nn.Linear(5, 7), nn.GELU(), nn.LayerNorm(7), nn.Linear(7, 4), nn.ReLU()),
        nn.Linear(4, 3, bias=False),
    )


def numbers():
    return torch.randn(20, 5, dtype=torch.float64)


CASES = [(clip, pixels), (bert, tokens), (network, numbers)]


def reduced(gram, factor):
    return gram * factor + torch.diag(gram.diagonal() * (1 - factor))


def own_gram(model, state, name, data):
    """The mean of x x' at one layer in one model, padding left out, by a hook."""
    rows = []
    model.load_state_dict(state)
    for batch in data:
        seen = []
        hook = model.get_submodule(name).register_forward_hook(
            lambda _, args, __, seen=seen: seen.append(args[0])
        )
        with torch.no_grad():
            model(**batch) if isinstance(batch, dict) else model(batch)
        hook.remove()
        mask = real_tokens(batch)
        whole = mask is None or mask.shape != seen[0].shape[:2]
        rows.append(seen[0].flatten(0, -2) if whole else seen[0][mask])
    x = torch.cat(rows)
    return x.T @ x / len(x)


def regmean_by_hand(model, sources, data, weights, factor):
    """Layer by layer, with the matrices inverted as printed."""
    merged = {
        key: sum(w * s[key] for w, s in zip(weights, sources, strict=True))
        if value.is_floating_point()
        else value
        for key, value in model.state_dict().items()
    }
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        key = f"{name}.weight"
        triples = zip(weights, sources, data, strict=True)
        grams = [
            w * reduced(own_gram(model, s, name, d), factor) for w, s, d in triples
        ]
        right = sum(g @ s[key].T for g, s in zip(grams, sources, strict=True))
        merged[key] = (torch.inverse(sum(grams)) @ right).T
    return merged


@pytest.mark.parametrize(("build", "batch"), CASES)
def test_every_linear_layer_by_the_printed_formula(build, batch):
    model, sources, data = family(build, batch)
    weights = [0.5, 0.2, 0.3]
    options = {"weights": weights, "off_diagonal": 0.8}
    ours = regmean(model, sources, model=model, task_data=data, **options)
    expected = regmean_by_hand(small(build), sources, data, weights, 0.8)
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        assert_close(ours[key], value, rtol=0, atol=WITHIN)


def test_the_merge_feeds_its_own_layers():
    """RegMean++ on a chain, where the merge so far is a prefix of it."""
    model, sources, data = family(network, numbers)
    ours = regmean_plus_plus(
        model, sources, model=model, task_data=data, off_diagonal=0.8
    )
    merged = average(model, sources)
    running = network().double()
    for position in (0, 3, 5):
        key = f"{position}.weight"
        running.load_state_dict(merged)
        with torch.no_grad():
            x = [running[:position](torch.cat(batches)) for batches in data]
        grams = [reduced(rows.T @ rows / len(rows), 0.8) for rows in x]
        right = sum(g @ s[key].T for g, s in zip(grams, sources, strict=True))
        merged[key] = (torch.inverse(sum(grams)) @ right).T
    for key, value in merged.items():
        assert_close(ours[key], value, rtol=0, atol=WITHIN)


def test_the_first_layer_sees_the_same_in_both():
    model, sources, data = family(network, numbers)
    options = {"model": model, "task_data": data, "off_diagonal": 0.8}
    one, other = (method(model, sources, **options) for method in METHODS)
    assert_close(one["0.weight"], other["0.weight"], rtol=0, atol=WITHIN)
    assert (one["3.weight"] - other["3.weight"]).abs().max() > 1e-3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("build", "batch"), CASES)
def test_one_source_and_equal_sources_are_returned(method, build, batch):
    model, (source, *_), data = family(build, batch)
    for q in (1, 3):
        merged = method(model, [source] * q, model=model, task_data=data[:q])
        for key, value in source.items():
            # The mean of equal numbers is off by its own rounding.
            assert_close(merged[key], value, rtol=4 * EPS, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_a_source_of_weight_zero_does_not_count(method):
    model, sources, data = family(network, numbers)
    two = method(model, sources[:2], model=model, task_data=data[:2])
    three = method(model, sources, model=model, task_data=data, weights=[0.5, 0.5, 0.0])
    for key in two:
        assert_close(three[key], two[key], rtol=0, atol=WITHIN)


@pytest.mark.parametrize("method", METHODS)
def test_more_samples_do_not_give_a_task_more_weight(method):
    model, sources, data = family(network, numbers)
    often = [data[0] * 3, *data[1:]]
    once = method(model, sources, model=model, task_data=data)
    thrice = method(model, sources, model=model, task_data=often)
    for key in once:
        assert_close(thrice[key], once[key], rtol=0, atol=WITHIN)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_passed_in_is_changed_or_shared(method):
    model, sources, data = family(network, numbers)
    model.train()
    states = [dict(model.state_dict()), *sources]
    before = [{k: v.clone() for k, v in state.items()} for state in states]
    merged = method(model, sources, model=model, task_data=data)
    for value in merged.values():
        value.zero_()
    for state, copy in zip(states, before, strict=True):
        assert all(torch.equal(state[key], copy[key]) for key in copy)
    assert model.training
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_layers_in_groups_are_what_they_are_together(monkeypatch):
    model, sources, data = family(clip, pixels)
    together = regmean(model, sources, model=model, task_data=data)
    runs = []
    grams = regmean_module._grams
    monkeypatch.setattr(regmean_module, "_AT_ONCE", 2**14)
    monkeypatch.setattr(
        regmean_module, "_grams", lambda *a: runs.append(a[3]) or grams(*a)
    )
    apart = regmean(model, sources, model=model, task_data=data)
    assert all(torch.equal(together[key], apart[key]) for key in together)
    # Each group once for each of three sources, and each layer in one group.
    groups = runs[::3]
    assert runs == [group for group in groups for _ in range(3)]
    assert len(groups) > 3
    assert Counter(layer for group in groups for layer in group) == Counter(
        name for name, m in model.named_modules() if isinstance(m, nn.Linear)
    )


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.inner = nn.Embedding(6, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(self.inner(self.embed(ids)))


@pytest.mark.parametrize("method", METHODS)
def test_a_head_tied_to_the_embedding_stays_tied(method):
    torch.manual_seed(0)
    model = Tied()
    sources = [Tied().state_dict() for _ in range(2)]
    data = [torch.randint(6, (3, 5)) for _ in range(2)]
    merged = method(model, sources, model=model, task_data=data)
    mean = average(model, sources)
    assert torch.equal(merged["head.weight"], merged["embed.weight"])
    assert torch.equal(merged["head.weight"], mean["head.weight"])
    assert not torch.equal(merged["inner.weight"], mean["inner.weight"])


@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_is_one_layer(method):
    torch.manual_seed(0)
    model, *sources = (nn.Linear(3, 2).double() for _ in range(3))
    data = [torch.randn(9, 3, dtype=torch.float64) for _ in range(2)]
    merged = method(model, sources, model=model, task_data=data, off_diagonal=0.0)
    power = torch.stack([x.square().mean(0) for x in data])[:, None]
    weights = torch.stack([source.weight.detach() for source in sources])
    expected = (power * weights).sum(0) / power.sum(0)
    assert_close(merged["weight"], expected, rtol=0, atol=32 * EPS)


@pytest.mark.parametrize("method", METHODS)
def test_a_sample_that_is_not_finite_is_named_with_the_layer(method):
    model, sources, data = family(network, numbers, q=2)
    data[1][0][3, 2] = torch.nan
    with pytest.raises(ValueError, match="enters the layer '0' holds a NaN"):
        method(model, sources, model=model, task_data=data)


@pytest.mark.parametrize("method", METHODS)
def test_padding_need_not_be_finite(method):
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 2).double()

        def forward(self, words, **_):
            return self.inner(words)

    torch.manual_seed(0)
    model, *sources = (Padded() for _ in range(3))
    words = torch.randn(2, 2, 3, dtype=torch.float64)
    words[1, 1] = torch.nan
    data = [{"words": words, "attention_mask": torch.tensor([[1, 1], [1, 0]])}] * 2
    merged = method(model, sources, model=model, task_data=data)
    assert merged["inner.weight"].isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_whole_grams_in_float32_meet_the_sources_on_fewer_rows_than_inputs(method):
    torch.manual_seed(0)
    model, *sources = (nn.Linear(128, 5, bias=False) for _ in range(3))
    data = [torch.randn(20, 128) for _ in range(2)]
    merged = method(model, sources, model=model, task_data=data, off_diagonal=1.0)
    for x, source in zip(data, sources, strict=True):
        # A float32 weight below 1 is off by half an ulp, in sums of 128 numbers
        # below 5.
        within = 128 * 5 * torch.finfo(torch.float32).eps / 2
        aim = x.double() @ source.weight.detach().double().T
        assert_close(x.double() @ merged["weight"].double().T, aim, rtol=0, atol=within)
    # In the directions of no row, of inputs of unit size, it stays at the mean.
    rows = torch.cat(data).double()
    size = rows.square().mean(dim=0).sqrt()
    mean = average(model, sources)["weight"].double()
    step = (merged["weight"].double() - mean) * size
    seen = torch.linalg.svd(rows / size, full_matrices=False).Vh
    unseen = step - step @ seen.T @ seen
    assert_close(unseen, torch.zeros_like(unseen), rtol=0, atol=within)


@pytest.mark.parametrize("name", ["regmean", "regmean_plus_plus"])
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"off_diagonal": 1.5}, r"off_diagonal must be in \[0, 1\]"),
        ({"task_data": None}, "task_data must be given"),
        ({"task_data": [torch.ones(1, 5)]}, "each of the 2 source models, got 1"),
        ({"model": nn.Linear(3, 4)}, "only the state has the key"),
        ({"weights": [0.5, 0.6]}, "weights must sum to 1"),
    ],
)
def test_a_bad_call_is_named(name, options, complaint):
    model, sources, data = family(network, numbers, q=2)
    given = {"model": model, "task_data": data, **options}
    with pytest.raises(ValueError, match=complaint):
        merge(model.state_dict(), sources, method=name, **given)

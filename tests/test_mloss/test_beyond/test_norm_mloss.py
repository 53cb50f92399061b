import math

import pytest
import torch
from beyond_models import (
    ARCHITECTURES,
    EPS,
    WEIGHTS,
    bert,
    clip,
    entering,
    llama,
    loaded,
    means_by_loops,
    near,
    opposite,
    pixels,
    real,
    small,
    tokens,
    vit,
    weighted,
)
from torch import nn
from torch.testing import assert_close

from mloss.beyond import norm_mloss
from mloss.merging import average

# Normalised entries are below 4 in size, times gains below 4, of 16 entries each.
CLOSE = {"rtol": 0, "atol": 2**12 * EPS}


def normalised(x, *, centred, eps):
    """One token at a time, from the definition."""
    out = torch.zeros_like(x)
    for index in torch.cartesian_prod(*map(torch.arange, x.shape[:-1])).reshape(
        -1, x.ndim - 1
    ):
        row = x[tuple(index)]
        row = row - row.mean() if centred else row
        out[tuple(index)] = row / math.sqrt(row.square().mean().item() + eps)
    return out


def by_loops(models, mean_state, name, batch):
    layer = models[0].get_submodule(name)
    centred = isinstance(layer, nn.LayerNorm)
    eps = layer.eps if centred else layer.variance_epsilon

    def applied(state, x):
        bias = state.get(f"{name}.bias", torch.zeros(()))
        return state[f"{name}.weight"] * normalised(x, centred=centred, eps=eps) + bias

    own = [entering(model, [name], batch)[name][0] for model in models]
    merged = applied(mean_state, weighted(own))
    mixed = weighted([applied(mean_state, x) for x in own])
    each = [applied(m.state_dict(), x) for m, x in zip(models, own, strict=True)]
    off = merged - weighted(each)
    found = {
        "node": off.abs(),
        "node_normalized": off.abs() / (merged.abs() + 1e-4),
        "layer": off.norm(dim=-1),
        "layer_normalized": off.norm(dim=-1) / (merged.norm(dim=-1) + 1e-4),
        "layer_bend": (merged - mixed).norm(dim=-1),
        "layer_product": (mixed - weighted(each)).norm(dim=-1),
    }
    if off.ndim == 2:
        return found
    return {k: means_by_loops(v, real(batch, v.shape[1])) for k, v in found.items()}


@pytest.mark.parametrize(("build", "batch"), ARCHITECTURES)
def test_every_number_by_loops(build, batch):
    base = small(build)
    sources, data = near(base), batch()
    models = [loaded(build, state) for state in sources]
    mean_state = average(base.state_dict(), sources, weights=WEIGHTS)
    score = norm_mloss(models, data, weights=WEIGHTS)
    assert (score.not_covered, score.samples) == ({}, 3)
    assert len(score.norms) == 5 + (build is clip)
    # Llama normalises in float32 whatever the model is in: three roundings of 2^-24
    # in numbers below 16.
    close = {"rtol": 0, "atol": 2.0**-18} if build is llama else CLOSE
    for ours in score.norms:
        expected = by_loops(models, mean_state, ours.layer_name, data)
        for key, of_samples in expected.items():
            if build is llama and key == "node_normalized":
                continue  # over as little as 1e-4, float32 rounding is anything
            found = torch.as_tensor(getattr(ours, key), dtype=torch.float64)
            exact = close | (
                {"atol": close["atol"] / 1e-4} if key == "node_normalized" else {}
            )
            assert_close(found, of_samples.mean(dim=0), **exact)
        spread = expected["layer"].std().item() / math.sqrt(3)
        assert ours.layer_stderr == pytest.approx(spread, abs=close["atol"])
        assert_close(ours.node_stderr, expected["node"].std(0) / math.sqrt(3), **close)


@pytest.mark.parametrize(
    ("build", "batch", "first"),
    [
        (clip, pixels, "vision_model.pre_layrnorm"),
        (vit, pixels, "layers.0.layernorm_before"),
        (bert, tokens, "embeddings.LayerNorm"),
        (llama, tokens, "layers.0.input_layernorm"),
    ],
)
def test_gains_and_biases_lose_nothing_on_one_shared_input(build, batch, first):
    # Only the first normalisation differs, so all sources feed it the same.
    base = small(build)
    losses = norm_mloss(near(base, only=first), batch(), model=base).norms
    exact = {loss.layer_name: loss.layer for loss in losses}
    assert exact.pop(first) < (2.0**-18 if build is llama else CLOSE["atol"])
    assert min(exact.values()) > 1e-3


def test_the_parts_by_what_differs():
    base = small(vit)
    # Inputs differ, gains do not: all bend. Gains differ too: a product as well.
    (*_, last) = norm_mloss(near(base, only="mlp"), pixels(), model=base).norms
    assert last.layer_product < CLOSE["atol"]
    assert last.layer_bend == pytest.approx(last.layer, rel=1e-12)
    (*_, last) = norm_mloss(near(base), pixels(), model=base).norms
    assert last.layer_product > 1e-3


@pytest.mark.parametrize(("build", "batch"), ARCHITECTURES)
def test_identical_sources_lose_nothing(build, batch):
    base = small(build)
    exact = 2.0**-18 if build is llama else CLOSE["atol"]
    for ours in norm_mloss([base] * 3, batch(), weights=WEIGHTS).norms:
        assert ours.layer < exact


@pytest.mark.parametrize("build", [clip, vit, bert])
def test_it_falls_as_the_square_of_the_step(build):
    # Even in the step, c e^2 (1 + O(e/s)^2) with s the scale on which the network
    # bends, above 2^-6 here. The rest is rounding.
    base = small(build)
    data = tokens() if build is bert else pixels()
    large, half = (
        norm_mloss(opposite(base, step=step), data, model=base).norms
        for step in (2.0**-12, 2.0**-13)
    )
    for a, b in zip(large, half, strict=True):
        if b.layer > CLOSE["atol"]:  # the first one may have one shared input
            assert a.layer / b.layer == pytest.approx(4, rel=2.0**-11)


def test_padding_and_the_cut_into_batches_do_not_count():
    base = small(bert)
    sources, padded = near(base), tokens((5, 3, 2))
    alone = [
        {name: value[i : i + 1, :length] for name, value in padded.items()}
        for i, length in enumerate((5, 3, 2))
    ]
    together, apart = (norm_mloss(sources, d, model=base) for d in (padded, alone))
    for ours, theirs in zip(together.norms, apart.norms, strict=True):
        assert_close(ours.node, theirs.node, **CLOSE)
        assert_close(ours.layer_stderr, theirs.layer_stderr, **CLOSE)


def test_what_is_not_covered_is_listed():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.batch, self.group = nn.BatchNorm1d(4), nn.GroupNorm(2, 4)
            self.twice, self.unused = nn.LayerNorm(4), nn.LayerNorm(4)
            self.images, self.fine = nn.LayerNorm(4), nn.RMSNorm(4)

        def forward(self, x):
            x = self.twice(self.twice(self.group(self.batch(x))))
            return self.fine(self.images(x[:, None, None])[:, 0, 0])

    base = Mixed().double()
    x = torch.randn(6, 4, dtype=torch.float64)
    score = norm_mloss([base, base], x)
    assert [norm.layer_name for norm in score.norms] == ["fine"]
    assert dict(score.not_covered) == {
        "batch": "BatchNorm1d is neither a layer nor an RMS normalisation",
        "group": "GroupNorm is neither a layer nor an RMS normalisation",
        "twice": "it runs 2 times in one forward pass",
        "unused": "it runs 0 times in one forward pass",
        "images": "its input [6, 1, 1, 4] is not [sample, token, node]",
    }


def test_a_bad_call_is_named():
    base = small(vit)
    sources, data = near(base), pixels()
    cases = [
        (lambda: norm_mloss(sources, data), "model must give"),
        (lambda: norm_mloss([], data, model=base), "at least one model"),
        (lambda: norm_mloss(sources, [], model=base), "at least one batch"),
        (lambda: norm_mloss(sources, data, model=base, weights=[1.0]), "one number"),
        (lambda: norm_mloss(sources, data, model=small(bert)), "only .* has the key"),
    ]
    for call, complaint in cases:
        with pytest.raises(ValueError, match=complaint):
            call()


@pytest.mark.gpu
def test_cpu_and_gpu_agree():
    base, data = small(bert), tokens()
    sources = near(base)
    on_cpu = norm_mloss(sources, data, model=base)
    base, sources = base.cuda(), [{k: v.cuda() for k, v in s.items()} for s in sources]
    on_gpu = norm_mloss(sources, data, model=base)
    for ours, theirs in zip(on_gpu.norms, on_cpu.norms, strict=True):
        assert ours.layer == pytest.approx(theirs.layer, rel=0, abs=CLOSE["atol"])

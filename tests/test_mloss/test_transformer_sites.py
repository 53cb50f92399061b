"""Sites, scores and gaps of the architectures people merge, built from config."""

import pytest
import torch
from small_transformers import bert, clip, clip_text, llama, pixels, tokens, vit
from torch import nn
from torch.testing import assert_close

from mloss import find_sites, gap, merge, node_mloss, score


def family(build, q=2, shift=0.05):
    torch.manual_seed(0)
    base = build().double()
    return base, [moved(base, build, shift) for _ in range(q)]


def moved(base, build, shift):
    source = build().double()
    state = base.state_dict()
    source.load_state_dict(
        {
            key: value + shift * torch.randn_like(value)
            if value.is_floating_point()
            else value
            for key, value in state.items()
        }
    )
    return source


@pytest.mark.parametrize(
    ("build", "batch", "expected"),
    [
        (clip, pixels, ["quick_gelu"] * 2),
        (clip_text, tokens, ["quick_gelu"] * 2),
        (vit, pixels, ["gelu"] * 2),
        (bert, tokens, ["gelu"] * 2 + ["tanh"]),
        (llama, tokens, ["silu"] * 2),
    ],
)
def test_the_real_activation_is_found(build, batch, expected):
    sites = find_sites(build().double(), batch())
    assert [site.activation_name for site in sites] == expected


def test_a_gated_pair_is_one_site_with_both_its_layers():
    sites = find_sites(llama(), tokens())
    assert [(s.layer, s.up) for s in sites] == [
        (f"layers.{i}.mlp.gate_proj", f"layers.{i}.mlp.up_proj") for i in range(2)
    ]


def test_gated_scores_by_hand():
    base, sources = family(llama)
    batch = tokens((5, 5, 5))
    seen = {}
    merged = llama().double()
    merged.load_state_dict(merge(base, sources, method="average").state)
    mlp = merged.eval().layers[0].mlp
    mlp.register_forward_pre_hook(lambda _, args: seen.update(x=args[0]))
    with torch.no_grad():
        merged(**batch)
        mlps = [source.layers[0].mlp for source in sources]
        g = torch.stack([m.gate_proj(seen["x"]) for m in mlps])
        u = torch.stack([m.up_proj(seen["x"]) for m in mlps])
        silu = nn.functional.silu
        expected = silu(g.mean(0)) * u.mean(0) - (silu(g) * u).mean(0)
    assert_close(node_mloss(g, "silu", up=u), expected.abs())
    first = score(base, sources, batch).sites[0]
    assert_close(first.node, expected.abs().mean(dim=(0, 1)))
    assert_close(first.layer, expected.norm(dim=-1).mean().item())
    assert first.prediction is None


def test_a_gate_with_another_input_is_no_pair():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.up = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return nn.functional.silu(self.gate(x)) * self.up(2 * x)

    (site,) = find_sites(Crossed(), torch.ones(2, 4))
    assert (site.layer, site.up) == ("gate", None)


def test_an_activation_after_batch_normalisation():
    def build():
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())

    base, sources = family(build)
    x = torch.randn(5, 3, 6, 6, dtype=torch.float64)
    (site,) = find_sites(base, x)
    assert (site.layer, site.norm) == ("0", "1")
    mean = build().double()
    mean.load_state_dict(merge(base, sources, method="average").state)
    with torch.no_grad():
        outputs = [model.eval()(x) for model in (mean, *sources)]
    loss = (outputs[0] - (outputs[1] + outputs[2]) / 2).abs()
    assert_close(score(base, sources, x).sites[0].node, loss.mean(dim=(0, 2, 3)))


@pytest.mark.parametrize("build", [bert, llama])
def test_padding_does_not_count(build):
    base, sources = family(build)
    padded = tokens((5, 3, 2))
    alone = [
        {name: value[i : i + 1, :length] for name, value in padded.items()}
        for i, length in enumerate((5, 3, 2))
    ]
    together, apart = (score(base, sources, data) for data in (padded, alone))
    for ours, theirs in zip(together.sites, apart.sites, strict=True):
        assert_close(ours.node, theirs.node)
        assert_close(ours.layer_stderr, theirs.layer_stderr)
        assert_close(ours.node_quantiles, theirs.node_quantiles)
        for name in ("prediction", "paper_prediction", "density_prediction"):
            assert_close(getattr(ours, name), getattr(theirs, name))
    average = merge(base, sources, method="average").state
    assert_close(
        gap(average, sources, padded, model=base).mean,
        gap(average, sources, alone, model=base).mean,
    )


def test_arguments_that_disagree_on_the_number_of_samples():
    batch = {"input_ids": torch.ones(2, 3), "attention_mask": torch.ones(3, 3)}
    with pytest.raises(ValueError, match=r"one number of samples, got \[2, 3\]"):
        find_sites(bert(), batch)

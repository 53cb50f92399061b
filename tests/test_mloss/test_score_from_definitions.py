"""Scores against loops over samples, tokens, nodes and sources."""

import math

import pytest
import torch
from small_transformers import bert, clip, clip_text, llama, pixels, tokens, vit
from torch import nn

from mloss import find_sites, score
from mloss.merging import average
from mloss.recording import recorded_inputs

EPS = torch.finfo(torch.float64).eps
WEIGHTS = [0.5, 0.3, 0.2]
DENOMINATOR = 1e-4
FORMULAS = {
    "quick_gelu": lambda x: x / (1 + math.exp(-1.702 * x)),
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
    "silu": lambda x: x / (1 + math.exp(-x)),
    "tanh": math.tanh,
    "relu": lambda x: max(x, 0.0),
}


def convolutional():
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 3, 3, bias=False), nn.BatchNorm2d(3), nn.SiLU()),
    )


def images():
    return torch.randn(3, 3, 7, 6, dtype=torch.float64)


def loaded(build, state):
    model = build().double().eval()
    model.load_state_dict(state)
    return model


def family(build):
    torch.manual_seed(0)
    states = [build().double().state_dict()]
    for _ in WEIGHTS:
        moved = {
            key: value + 0.05 * torch.randn_like(value) if value.is_floating_point()
            else value
            for key, value in states[0].items()
        }  # fmt: skip
        states.append(moved)
    base, *sources = (loaded(build, state) for state in states)
    return base, sources, loaded(build, average(base, sources, weights=WEIGHTS))


def at_tokens(model, site, x):
    """Lists [sample][token][node] of h, and of what f(h) is multiplied by."""
    layer, nodes_last = model.get_submodule(site.layer), lambda h: h
    if not isinstance(layer, nn.Linear):
        nodes_last = lambda h: h.movedim(1, -1)  # noqa: E731  # one of two short rules
    h = layer(x)
    if site.norm:
        h = model.get_submodule(site.norm)(h)
    up = model.get_submodule(site.up)(x) if site.up else torch.ones_like(h)
    return [
        nodes_last(v).reshape(len(v), -1, nodes_last(v).shape[-1]).tolist()
        for v in (h, up)
    ]


def by_loops(merged, each, f, is_real):
    """Means of Eqs. 4 and 7 (a list, one of each node) and of Eqs. 3 and 6."""
    (h, up), rows = merged, []
    for s, sample in enumerate(h):
        real = [t for t in range(len(sample)) if is_real(s, t)]
        for t in real:
            size = [f(x) * u for x, u in zip(sample[t], up[s][t], strict=True)]
            loss = [
                abs(
                    size[n]
                    - sum(
                        w * f(own[s][t][n]) * factor[s][t][n]
                        for w, (own, factor) in zip(WEIGHTS, each, strict=True)
                    )
                )
                for n in range(len(size))
            ]
            norm, norms = math.hypot(*loss), math.hypot(*size)
            ratios = [
                d / (abs(v) + DENOMINATOR) for d, v in zip(loss, size, strict=True)
            ]
            share = 1 / len(real) / len(h)
            row = [*loss, *ratios, norm, norm / (norms + DENOMINATOR)]
            rows.append([share * value for value in row])
    *nodes, layer, layer_ratio = map(math.fsum, zip(*rows, strict=True))
    half = len(nodes) // 2
    return nodes[:half], nodes[half:], layer, layer_ratio


@pytest.mark.parametrize("inputs", ["merge", "base"])
@pytest.mark.parametrize(
    ("build", "data"),
    [
        (clip, pixels),
        (clip_text, tokens),
        (vit, pixels),
        (bert, tokens),
        (llama, tokens),
        (convolutional, images),
    ],
)
def test_scores_are_the_definitions(build, data, inputs):
    base, sources, merge = family(build)
    batch = data()
    carrier = merge if inputs == "merge" else base
    sites = find_sites(carrier, batch)
    with torch.no_grad(), recorded_inputs(carrier, [s.layer for s in sites]) as seen:
        carrier(batch) if isinstance(batch, torch.Tensor) else carrier(**batch)
    mask = None if isinstance(batch, torch.Tensor) else batch.get("attention_mask")
    ours = score(base, sources, batch, weights=WEIGHTS, inputs=inputs, eps=DENOMINATOR)
    assert len(ours.sites) == len(sites) == 2 + (build is bert)
    for site, found in zip(sites, ours.sites, strict=True):
        x = seen[site.layer]
        padded = mask is not None and x.shape[:2] == mask.shape
        with torch.no_grad():
            merged, *each = (at_tokens(m, site, x) for m in (merge, *sources))
        node, ratio, layer, layer_ratio = by_loops(
            merged,
            each,
            FORMULAS[site.activation_name],
            (lambda s, t: bool(mask[s, t])) if padded else (lambda s, t: True),  # noqa: ARG005  # one shape for both
        )
        # Some hundred roundings of numbers below 4: sums over inputs, over sources
        # and over tokens. Division by at least the denominator magnifies them.
        near, divided = 1024 * EPS, 1024 * EPS / DENOMINATOR
        assert found.node.tolist() == pytest.approx(node, rel=0, abs=near)
        assert found.node_normalized.tolist() == pytest.approx(
            ratio, rel=0, abs=divided
        )
        assert found.layer == pytest.approx(layer, rel=0, abs=8 * near)
        assert found.layer_normalized == pytest.approx(layer_ratio, rel=0, abs=divided)
        assert min(node) > 1e6 * near

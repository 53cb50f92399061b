"""What is measured on one merge, beside the definitions written out as loops."""

from math import sqrt

import numpy as np
import pytest
from measured_networks import WIDTHS
from numpy.testing import assert_allclose
from strategies import EPS

from simulate.networks import FEEDS, draw_merge, measure_merge
from simulate.random_networks import network_family, pre_activations
from theory.depth import Layer as TheoryLayer
from theory.depth import depth_bound

WEIGHTS = np.array([0.5, 0.2, 0.3])


def one_merge(activation="gelu", *, sigma=0.4, bias_share=0.2, weights=WEIGHTS):
    family = network_family(WIDTHS, activation=activation, bias_share=bias_share)
    rng = np.random.default_rng(0)
    merge = draw_merge(family, sigma, weights=weights, rng=rng)
    return merge, family.draw_inputs(6, rng), family.activation


def naive(merge, x, f):
    """Every field of one merge by loops over inputs, layers and sources."""
    w, depth = merge.weights, len(merge.base) - 1

    def hidden(network, a):
        h = []
        for layer in network:
            h.append(layer.weight @ a + layer.bias)
            a = f(h[-1])
        return h

    def above(network, level, a):
        for layer in network[level:-1]:
            a = f(layer.weight @ a + layer.bias)
        return network[-1].weight @ a + network[-1].bias

    rows = []
    for a0 in x:
        base, merged = hidden(merge.base, a0), hidden(merge.merged, a0)
        own = [hidden(source, a0) for source in merge.sources]
        gap = merged[-1] - sum(wi * h[-1] for wi, h in zip(w, own, strict=True))
        row = {
            "spread": [np.mean(h**2) for h in base[:-1]],
            "largest": [np.abs(h).max() for h in base[:-1]],
            "output": np.mean(base[-1] ** 2),
            "gap": np.mean(gap**2),
        }
        per_feed = {name: [] for name in ("node_mloss", "layer_mloss")}
        per_feed |= {"jensen_variance": [], "carried": [], "overlap": []}
        for feed in FEEDS:
            node, norm, variance, carried = [], [], [], 0.0
            for level in range(depth):
                hs = []
                for i, source in enumerate(merge.sources):
                    below = {"own": own[i], "merged": merged, "base": base}[feed]
                    a = a0 if level == 0 else f(below[level - 1])
                    hs.append(source[level].weight @ a + source[level].bias)
                mean = sum(wi * h for wi, h in zip(w, hs, strict=True))
                outputs = sum(wi * f(h) for wi, h in zip(w, hs, strict=True))
                loss = f(mean) - outputs
                node.append(np.mean(np.abs(loss)))
                norm.append(sqrt(np.sum(loss**2)))
                scatter = [wi * (h - mean) ** 2 for wi, h in zip(w, hs, strict=True)]
                variance.append(np.mean(sum(scatter)))
                carried = carried + above(merge.merged, level + 1, f(mean))
                carried = carried - above(merge.merged, level + 1, outputs)
            per_feed["node_mloss"].append(node)
            per_feed["layer_mloss"].append(norm)
            per_feed["jensen_variance"].append(variance)
            per_feed["carried"].append(np.mean(carried**2))
            per_feed["overlap"].append(np.mean(carried * gap))
        rows.append(row | per_feed)
    means = {name: np.mean([row[name] for row in rows], axis=0) for name in rows[0]}
    means["largest"] = np.max([row["largest"] for row in rows], axis=0)
    return means


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
def test_every_measurement_is_its_definition(activation):
    merge, x, f = one_merge(activation)
    found = measure_merge(merge, x, f=f)
    for name, expected in naive(merge, x, f).items():
        # Sums of some hundred terms of order 1, in another order.
        assert_allclose(
            getattr(found, name), expected, rtol=0, atol=1000 * EPS, err_msg=name
        )


def test_merging_averages_the_parameters():
    merge, _, _ = one_merge()
    for layer, *own in zip(merge.merged, *merge.sources, strict=True):
        mean = sum(w * each.weight for w, each in zip(WEIGHTS, own, strict=True))
        assert_allclose(layer.weight, mean, rtol=0, atol=8 * EPS)
        mean = sum(w * each.bias for w, each in zip(WEIGHTS, own, strict=True))
        assert_allclose(layer.bias, mean, rtol=0, atol=8 * EPS)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_theory_of_depth_splits_the_same_gap(activation):
    merge, x, f = one_merge(activation)
    found = measure_merge(merge, x, f=f)
    split = depth_bound(
        [[TheoryLayer(la.weight, la.bias) for la in net] for net in merge.sources],
        x,
        activation=activation,
        weights=WEIGHTS,
    )
    assert_allclose(found.gap, np.mean(split.gap**2), rtol=0, atol=1000 * EPS)
    own = found.layer_mloss[FEEDS.index("own")]
    assert_allclose(own, split.mloss[:-1].mean(axis=1), rtol=0, atol=1000 * EPS)


def test_pre_activations_stay_as_they_are():
    merge, x, _ = one_merge()
    h = pre_activations(merge.base, x, f=lambda a: np.maximum(a, 0.0, out=a))
    assert h[0].min() < 0

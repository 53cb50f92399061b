"""Whole networks: the definitions written out, and where theory knows the answer."""

from dataclasses import fields
from math import sqrt

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import kstest

from simulate.activations import gelu, relu
from simulate.networks import (
    FEEDS,
    NetworkMeasurements,
    draw_merge,
    measure_merge,
    measure_networks,
    over_networks,
    ratio_over_networks,
)
from simulate.random_networks import (
    combined,
    mean_square,
    network_family,
    pre_activations,
)
from theory.density import gaussian_base_mloss
from theory.depth import Layer as TheoryLayer
from theory.depth import depth_bound
from theory.two_layer import linear_gap_second_moment
from theory.wide import wide_merge

EPS = np.finfo(np.float64).eps
WIDTHS = (5, 7, 6, 4, 3)
WEIGHTS = np.array([0.5, 0.2, 0.3])


def assert_consistent(mean, claim, *, sharp, z=5.0):
    """|mean - claim| <= z standard errors, which are at most `sharp` of the claim."""
    assert np.all(mean.stderr <= sharp * np.abs(claim))
    off = np.abs(mean.value - claim) / mean.stderr
    assert np.all(off <= z), f"{off} standard errors apart"


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


def test_all_feeds_are_alike_in_the_first_layer_and_differ_above():
    found = measure(activation="gelu", networks=5)
    own, merged, base = np.moveaxis(found.node_mloss, 1, 0)
    assert_array_equal(own[:, 0], base[:, 0])
    assert_array_equal(own[:, 0], merged[:, 0])
    assert (own[:, 1:] != base[:, 1:]).all()
    assert (merged[:, 1:] != base[:, 1:]).all()


def test_a_fine_tune_moves_every_parameter_by_sigma_of_its_deviation():
    sigma = 0.3
    family = network_family((40, 60, 50, 30), activation="gelu", bias_share=0.1)
    rng = np.random.default_rng(1)
    merge = draw_merge(family, sigma, weights=np.ones(1), rng=rng)
    steps = combined([merge.sources[0], merge.base], [1.0, -1.0])
    for step, layer, (weight, bias) in zip(
        steps, merge.base, family.deviations, strict=True
    ):
        # Nine tests at 1e-4: a wrong alarm in a thousand seeds.
        assert kstest(step.weight.ravel(), "norm", (0, sigma * weight)).pvalue > 1e-4
        assert kstest(layer.weight.ravel(), "norm", (0, weight)).pvalue > 1e-4
        assert kstest(step.bias, "norm", (0, sigma * bias)).pvalue > 1e-4


@pytest.mark.parametrize(
    ("f", "expected"), [(relu, 0.5), (np.copy, 1.0), (np.sign, 1.0)]
)
def test_he_has_half_the_variance_for_relu(f, expected):
    assert_allclose(mean_square(f), expected, rtol=1e-12)  # of adaptive quadrature


def test_inputs_have_mean_square_one():
    family = network_family(WIDTHS)
    x = family.draw_inputs(100, np.random.default_rng(0))
    assert_allclose(np.mean(x**2, axis=1), 1, rtol=8 * EPS)


def measure(**changes):
    settings = {
        "widths": WIDTHS,
        "sigma": 0.3,
        "networks": 40,
        "inputs": 4,
        "rng": np.random.default_rng(0),
    } | changes
    return measure_networks(settings.pop("widths"), settings.pop("sigma"), **settings)


def assert_same(first, second):
    for field in fields(NetworkMeasurements):
        a, b = getattr(first, field.name), getattr(second, field.name)
        assert_array_equal(a, b, err_msg=field.name)


def test_one_seed_gives_the_same_numbers():
    assert_same(measure(), measure())
    assert (measure().gap != measure(rng=np.random.default_rng(1)).gap).all()


def test_a_network_does_not_depend_on_how_many_follow():
    few, many = measure(networks=3), measure(networks=5)
    assert_array_equal(few.gap, many.gap[:3])


def test_the_same_networks_are_seen_at_every_sigma():
    assert_array_equal(measure(sigma=0.1).output, measure(sigma=0.2).output)


def test_more_inputs_come_after_the_same_first_ones():
    few, many = measure(inputs=4), measure(inputs=5)
    assert (many.largest >= few.largest).all()


def test_an_activation_may_work_in_place():
    def in_place(h):
        return np.maximum(h, 0.0, out=h)

    assert_same(measure(activation=in_place), measure(activation="relu"))


def test_progress_is_told_of_every_network():
    seen = []
    measure(networks=3, progress=lambda *counts: seen.append(counts))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_one_source_leaves_nothing():
    found = measure(q=1)
    assert not found.node_mloss.any()
    assert not found.gap.any()


@pytest.mark.parametrize("weights", [None, [0.7, 0.3]])
def test_a_linear_network_has_a_gap_and_no_mloss(weights):
    """At any width: the limit's covariances hold exactly for linear networks."""
    sigma, widths = 0.5, (3, 4, 2, 5, 2)
    found = measure(
        activation="identity",
        sigma=sigma,
        widths=widths,
        weights=weights,
        networks=1000,
    )
    # Sums and products of a few numbers of order 1.
    assert found.node_mloss.max() < 100 * EPS
    assert found.carried.max() < (100 * EPS) ** 2
    wide = wide_merge("identity", sigma, depth=3, weights=weights)
    assert_consistent(over_networks(found.gap), wide.gap, sharp=0.12)
    own = found.jensen_variance[:, FEEDS.index("own")]
    assert_consistent(over_networks(own), wide.jensen_variance, sharp=0.05)


def test_two_linear_layers_have_the_gap_of_their_covariance():
    inputs, hidden, outputs, sigma = 6, 8, 3, 0.4
    found = measure(
        activation="identity",
        widths=(inputs, hidden, outputs),
        sigma=sigma,
        weights=[0.8, 0.2],
        networks=2000,
    )
    expected = linear_gap_second_moment(
        sqrt(inputs),
        hidden=hidden,
        outputs=outputs,
        inner_sigma=sigma / sqrt(inputs),
        outer_sigma=sigma / sqrt(hidden),
        weights=[0.8, 0.2],
    )
    assert_consistent(over_networks(outputs * found.gap), expected, sharp=0.02)


@pytest.mark.parametrize("bias_share", [0.0, 0.3])
@pytest.mark.parametrize("q", [2, 5])
def test_one_hidden_layer_has_the_mloss_of_a_gaussian_base(q, bias_share):
    """Over networks its pre-activations are Gaussian, their errors independent."""
    sigma = 0.3
    found = measure(
        widths=(6, 40, 1), sigma=sigma, q=q, bias_share=bias_share, networks=1000
    )
    expected = gaussian_base_mloss("relu", mean=0, deviation=1, sigma=sigma, q=q)
    for feed in range(len(FEEDS)):
        mean = over_networks(found.node_mloss[:, feed, 0])
        assert_consistent(mean, expected, sharp=0.015)


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
def test_wide_networks_have_the_gap_of_their_limit(activation):
    """The finite width moves mean squares by the order of L / width, 1.2 % here."""
    sigma, depth, width = 0.2, 3, 256
    found = measure(
        activation=activation,
        widths=(width,) * (depth + 2),
        sigma=sigma,
        networks=30,
        inputs=2,
    )
    wide = wide_merge(activation, sigma, depth=depth)
    gap = over_networks(found.gap)
    assert gap.stderr < 0.05 * wide.gap
    assert abs(gap.value - wide.gap) < 5 * gap.stderr + 0.04 * wide.gap
    own = over_networks(found.jensen_variance[:, FEEDS.index("own")])
    assert (own.stderr < 0.03 * wide.jensen_variance).all()
    bias = 0.04 * wide.jensen_variance
    assert (np.abs(own.value - wide.jensen_variance) < 5 * own.stderr + bias).all()


def test_ratios_have_the_spread_of_independent_runs():
    rng = np.random.default_rng(0)
    below = rng.normal(10.0, 1.0, size=(2000, 50))
    above = 3 * below + rng.normal(0.0, 2.0, size=below.shape)
    ratios = [ratio_over_networks(a, b) for a, b in zip(above, below, strict=True)]
    spread = np.std([ratio.value for ratio in ratios])
    # The spread of 2,000 has a relative error of 1.6 %; the next order is 1 / 5,000.
    assert_allclose(np.mean([r.stderr for r in ratios]), spread, rtol=5 * 0.016)


def test_gelu_is_passed_as_a_function_too():
    assert_same(measure(activation=gelu), measure(activation="gelu"))


def test_pre_activations_stay_as_they_are():
    merge, x, _ = one_merge()
    h = pre_activations(merge.base, x, f=lambda a: np.maximum(a, 0.0, out=a))
    assert h[0].min() < 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"widths": (3, 2)}, ValueError, "widths must name inputs, hidden layers"),
        ({"widths": (3, 0, 2)}, ValueError, "widths must be at least 1, got 0"),
        ({"widths": (3, 2.5, 2)}, TypeError, "widths must be an integer, got 2.5"),
        ({"sigma": 0.0}, ValueError, "sigma must be"),
        ({"sigma": 1e200, "widths": (3, 4, 2)}, ValueError, "float64 overflows"),
        ({"activation": "reul"}, ValueError, "activation must be one of"),
        ({"activation": np.zeros_like}, ValueError, "activation must not vanish"),
        ({"bias_share": 1.0}, ValueError, r"bias_share must be in \[0, 1\), got 1.0"),
        ({"bias_share": np.nan}, ValueError, "bias_share must be in"),
        ({"networks": 1}, ValueError, "networks must be at least 2, got 1"),
        ({"inputs": 0}, ValueError, "inputs must be at least 1, got 0"),
        ({"weights": [0.5, 0.4]}, ValueError, "weights must sum to 1"),
        ({"rng": 0}, TypeError, r"rng must be a numpy\.random\.Generator"),
    ],
)
def test_bad_input_is_refused_by_name(change, error, message):
    with pytest.raises(error, match=message):
        measure(**change)


def test_means_need_networks_and_ratios_a_denominator():
    with pytest.raises(ValueError, match="values must be of at least two networks"):
        over_networks(np.ones((1, 3)))
    with pytest.raises(ValueError, match="below must not have the mean 0"):
        ratio_over_networks(np.ones(3), np.zeros(3))

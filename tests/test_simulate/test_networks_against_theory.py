"""Random networks of which theory knows what merging does to them."""

from math import sqrt

import numpy as np
import pytest
from measured_networks import measure
from strategies import EPS

from simulate.networks import FEEDS, over_networks
from theory.density import gaussian_base_mloss
from theory.two_layer import linear_gap_second_moment
from theory.wide import wide_merge


def assert_consistent(mean, claim, *, sharp, z=5.0):
    """|mean - claim| <= z standard errors, which are at most `sharp` of the claim."""
    assert np.all(mean.stderr <= sharp * np.abs(claim))
    off = np.abs(mean.value - claim) / mean.stderr
    assert np.all(off <= z), f"{off} standard errors apart"


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

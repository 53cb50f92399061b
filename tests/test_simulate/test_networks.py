from dataclasses import fields

import numpy as np
import pytest
from measured_networks import measure
from numpy.testing import assert_allclose, assert_array_equal

from simulate.activations import gelu
from simulate.networks import NetworkMeasurements, over_networks, ratio_over_networks


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


def test_all_feeds_are_alike_in_the_first_layer_and_differ_above():
    found = measure(activation="gelu", networks=5)
    own, merged, base = np.moveaxis(found.node_mloss, 1, 0)
    assert_array_equal(own[:, 0], base[:, 0])
    assert_array_equal(own[:, 0], merged[:, 0])
    assert (own[:, 1:] != base[:, 1:]).all()
    assert (merged[:, 1:] != base[:, 1:]).all()


def test_an_activation_may_work_in_place():
    def in_place(h):
        return np.maximum(h, 0.0, out=h)

    assert_same(measure(activation=in_place), measure(activation="relu"))


def test_gelu_is_passed_as_a_function_too():
    assert_same(measure(activation=gelu), measure(activation="gelu"))


def test_progress_is_told_of_every_network():
    seen = []
    measure(networks=3, progress=lambda *counts: seen.append(counts))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_one_source_leaves_nothing():
    found = measure(q=1)
    assert not found.node_mloss.any()
    assert not found.gap.any()


def test_ratios_have_the_spread_of_independent_runs():
    rng = np.random.default_rng(0)
    below = rng.normal(10.0, 1.0, size=(2000, 50))
    above = 3 * below + rng.normal(0.0, 2.0, size=below.shape)
    ratios = [ratio_over_networks(a, b) for a, b in zip(above, below, strict=True)]
    spread = np.std([ratio.value for ratio in ratios])
    # The spread of 2,000 has a relative error of 1.6 %; the next order is 1 / 5,000.
    assert_allclose(np.mean([r.stderr for r in ratios]), spread, rtol=5 * 0.016)


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

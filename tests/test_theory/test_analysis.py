"""Bare functions: what is found, and what is refused."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from theory import expected_mloss, total_variation
from theory.activations import NAMED, Activation
from theory.analysis import resolve


def bare(activation: Activation):
    return lambda x: activation.function(x)


@pytest.mark.parametrize("name", NAMED)
def test_a_bare_function_is_the_named_one(name):
    exact, found = NAMED[name], resolve(bare(NAMED[name]))
    assert_allclose(total_variation(found), total_variation(exact), atol=1e-8)
    if name != "identity":  # which has its kink of size 0
        smooth_only = {"elu"}  # its f' does not jump, so nothing marks the kink
        if name not in smooth_only:
            assert_allclose(found.kinks, exact.kinks, atol=1e-6)
        assert_allclose(found.inflections, exact.inflections, atol=1e-6)
        for k, sigma in ((3.0, 1.0), (50.0, 0.01), (0.5, 2.0)):
            value = expected_mloss(exact, k, sigma)
            assert_allclose(expected_mloss(found, k, sigma), value, rtol=1e-8)


@pytest.mark.parametrize("shift", [-300.0, 9.0, 10.0, 20.0, 500.0])
def test_a_kink_far_out_is_found(shift):
    def shifted(x):
        return np.maximum(x - shift, 0)

    assert_allclose(total_variation(shifted), 1, rtol=1e-9)
    # k / sigma is large, and the kink well inside: V / (4k).
    assert_allclose(expected_mloss(shifted, 1000.0, 1.0), 1 / 8000, rtol=1e-8)


REFUSED = {
    "must become a straight line": np.square,
    "still bends": np.sin,
    "must be continuous": np.sign,
    "must be elementwise": lambda x: x.sum(),
    "must be finite": lambda x: 1 / np.where(x == 0, np.nan, 1.0) * np.log(np.abs(x)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_has_no_expected_mloss_here_is_refused(message):
    with (
        np.errstate(all="ignore"),
        pytest.raises(ValueError, match=f"activation .*{message}|activation {message}"),
    ):
        total_variation(REFUSED[message])

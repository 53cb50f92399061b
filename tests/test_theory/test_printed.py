"""The printed formulas, and that they are not the truth."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from theory import LeakyReLU, expected_mloss, paper_approximation


def test_relu_under_both_readings():
    outside = paper_approximation("relu", 9.0, 2.0)
    inside = paper_approximation("relu", 9.0, 2.0, reading="k_inside_root")
    assert_allclose(outside, 4 / (np.sqrt(2 * np.pi) * 9), rtol=1e-15)
    assert_allclose(inside, 4 / np.sqrt(2 * np.pi * 9), rtol=1e-15)


def test_leaky_relu_and_gelu():
    leaky = paper_approximation(LeakyReLU(0.1), 9.0, 2.0)
    assert_allclose(leaky, 0.9 * paper_approximation("relu", 9.0, 2.0), rtol=1e-15)
    assert_allclose(paper_approximation("gelu", 9.0, [2.0, 4.0]), [1 / 9, 4 / 9])


def test_the_truth_is_something_else():
    ratio = expected_mloss("relu", 100.0, 1.0) / paper_approximation("relu", 100.0, 1.0)
    assert_allclose(ratio, np.sqrt(2 * np.pi) / 8, rtol=1e-12)


def test_refusals():
    with pytest.raises(ValueError, match="reading must be one of"):
        paper_approximation("relu", 1.0, 1.0, reading="literal")
    with pytest.raises(ValueError, match="no formula for activation 'silu'"):
        paper_approximation("silu", 1.0, 1.0)
    with pytest.raises(ValueError, match="k must be finite and > 0"):
        paper_approximation("relu", 0.0, 1.0)

"""Simulated gated nodes: by hand, in closed form, and against the theory."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from simulate.activations import relu
from simulate.gated import estimate_gated_mloss, gated_law, gated_mloss
from theory.gated import expected_gated_mloss

TIED = {"weights": [0.3, 0.7], "cov": [[1.0, -0.3], [-0.3, 2.0]]}
ONE_ERROR = {"weights": [0.3, 0.7], "cov": [[1.0, 2.0], [2.0, 4.0]]}
SKEWED = {
    "q": 3,
    "weights": [0.2, 0.3, 0.5],
    "cov": [[1.0, 0.5, 0.0], [0.5, 2.0, -0.3], [0.0, -0.3, 0.7]],
}
EIGHT = {"q": 8}
CELLS = [
    ("silu", 3.0, 1.0, 3.0, 1.0, 0.0, {}),
    ("silu", 3.0, 1.0, 3.0, 1.0, 0.9, TIED),
    ("silu", 0.1, 1.0, 0.1, 1.0, 0.3, {}),
    ("silu", 1.0, 1e-6, 1.0, 1e-6, 0.3, TIED),
    ("silu", 3.0, 1e-6, 3.0, 1.0, 0.5, {}),
    ("silu", 3.0, 1.0, 3.0, 1e-6, 0.5, TIED),
    ("silu", 1e6, 1.0, 2.0, 1.0, 0.5, {}),
    ("silu", 2.0, 1.0, 3.0, 0.5, -1.0, ONE_ERROR),
    ("silu", 5.0, 0.5, 0.3, 2.0, 0.4, SKEWED),
    ("silu", 4.0, 1.0, 4.0, 1.0, 0.0, EIGHT),
    ("gelu", 1.0, 2.0, 30.0, 0.1, -0.9, TIED),
    ("gelu", 2.0, 1e-3, 5.0, 1e-2, 0.2, SKEWED),
    ("relu", 5.0, 0.5, 1.0, 2.0, 0.0, {}),
    ("relu", 2.0, 1.0, 1.0, 2.0, 1.0, TIED),
    ("relu", 1.0, 100.0, 1.0, 0.1, 0.3, EIGHT),
    ("tanh", 30.0, 20.0, 5.0, 1.0, 0.2, {}),
    ("hard_swish", 3.0, 1.0, 2.0, 1.0, -0.5, ONE_ERROR),
    ("identity", 2.0, 1.0, 3.0, 0.2, 0.6, SKEWED),
]


@pytest.mark.parametrize(
    ("gate", "k", "sigma", "k_up", "sigma_up", "correlation", "law"), CELLS
)
def test_simulation_finds_what_theory_says(
    gate, k, sigma, k_up, sigma_up, correlation, law
):
    ups = {"k_up": k_up, "sigma_up": sigma_up, "correlation": correlation}
    exact = expected_gated_mloss(gate, k, sigma, **ups, **law)
    found = estimate_gated_mloss(
        gate, k, sigma, n=500_000, rng=np.random.default_rng(4), **ups, **law
    )
    # Sharp enough to see 2 % at five standard errors.
    assert found.stderr <= 4e-3 * exact.value, "too noisy to test"
    noise = np.hypot(found.stderr, exact.error / 3)
    assert abs(found.value - exact.value) <= 5 * noise


@pytest.mark.parametrize(
    ("gates", "ups", "weights", "expected"),
    [
        ([1.0, -1.0], [2.0, 6.0], [0.5, 0.5], 1.0),  # 0 * 4 - (2 + 0)/2
        ([3.0, 1.0], [2.0, 4.0], [0.5, 0.5], 1.0),  # 2 * 3 - (6 + 4)/2
        ([3.0, -1.0], [2.0, -2.0], [0.75, 0.25], 2.5),  # 2 * 1 - 4.5
        ([-3.0, -1.0], [2.0, 4.0], [0.5, 0.5], 0.0),
    ],
)
def test_definition_by_hand(gates, ups, weights, expected):
    g, u = np.array(gates)[:, None], np.array(ups)[:, None]
    assert gated_mloss(relu, g, u, weights=np.array(weights)) == [expected]


def test_the_errors_have_the_stated_covariance():
    n, cov = 400_000, np.array(SKEWED["cov"])
    law = gated_law(1e-9, 2.0, k_up=1e-9, sigma_up=0.5, correlation=0.6, **SKEWED)
    g, u = law.sample(n, rng=np.random.default_rng(5))
    found = np.cov(np.vstack([g / 2, u / 0.5]))
    expected = np.kron([[1, 0.6], [0.6, 1]], cov)
    # A sample covariance of Gaussians varies by (c_ii c_jj + c_ij^2) / n.
    spread = np.sqrt((np.outer(*2 * [np.diag(expected)]) + expected**2) / n)
    assert (np.abs(found - expected) <= 5 * spread).all()


def test_the_bases_are_uniform_and_independent():
    law = gated_law(3.0, 1e-9, k_up=0.5, sigma_up=1e-9)
    n = 200_000
    g, u = (block[0] for block in law.sample(n, rng=np.random.default_rng(6)))
    for base, k in ((g, 3.0), (u, 0.5)):
        assert np.abs(base).max() <= k + 1e-7
        # x^2 / k^2 has mean 1/3 and variance 4/45.
        assert abs((base**2).mean() / k**2 - 1 / 3) <= 5 * np.sqrt(4 / 45 / n)
    assert abs(np.corrcoef(g, u)[0, 1]) <= 5 / np.sqrt(n)


def test_one_model_merges_without_loss():
    rng = np.random.default_rng(0)
    found = estimate_gated_mloss("silu", 3.0, 1.0, q=1, n=1000, rng=rng)
    assert (found.value, found.stderr, found.n) == (0, 0, 1000)


def test_the_ups_scales_default_to_the_gate_s():
    given, default = (
        estimate_gated_mloss(
            "silu", 2.0, 0.5, n=1000, rng=np.random.default_rng(1), **ups
        )
        for ups in ({"k_up": 2.0, "sigma_up": 0.5}, {})
    )
    assert given == default


@pytest.mark.parametrize("n", [2, 2**13, 50_001])
def test_blocks_make_one_sample(n):
    found = estimate_gated_mloss("relu", 1.0, 0.5, n=n, rng=np.random.default_rng(7))
    law, rng = gated_law(1.0, 0.5), np.random.default_rng(7)
    block, losses = 2**13, []
    for start in range(0, n, block):
        g, u = law.sample(min(block, n - start), rng=rng)
        losses.append(gated_mloss(relu, g, u, weights=law.weights))
    losses = np.concatenate(losses)
    # Pairwise sums of positive numbers: about log2(n) roundings.
    rtol = 2 * np.log2(2 * n) * np.finfo(float).eps
    assert_allclose(found.value, losses.mean(), rtol=rtol)
    assert_allclose(found.stderr, losses.std(ddof=1) / np.sqrt(n), rtol=4 * rtol)


@pytest.mark.parametrize(
    ("name", "bad", "kind"),
    [
        ("k", 0.0, ValueError),
        ("sigma", -1.0, ValueError),
        ("k_up", np.inf, ValueError),
        ("sigma_up", float("nan"), ValueError),
        ("correlation", 1.5, ValueError),
        ("correlation", float("nan"), ValueError),
        ("q", 0, ValueError),
        ("weights", [0.5, 0.6], ValueError),
        ("cov", [[1, 2], [2, 1]], ValueError),
        ("n", 1, ValueError),
        ("activation", "swiglu", ValueError),
        ("rng", 0, TypeError),
    ],
)
def test_bad_input_is_named(name, bad, kind):
    good = {"activation": "silu", "k": 2.0, "sigma": 1.0, "n": 10}
    good["rng"] = np.random.default_rng(0)
    with pytest.raises(kind, match=name):
        estimate_gated_mloss(**{**good, name: bad})

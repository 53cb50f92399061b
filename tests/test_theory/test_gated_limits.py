"""The gated limit and bound, and what the doc states of the gap."""

from pathlib import Path

import numpy as np
import pytest
from gated_node import TIED, correlations, of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.special import expit
from strategies import error_laws

from theory import expected_mloss
from theory.activations import NAMED
from theory.gated import expected_gated_mloss
from theory.gated.limits import gated_mloss_bound, gated_mloss_limit
from theory.gated.means import mean_product

DOCS = Path(__file__).parents[2] / "docs" / "gated.md"


@pytest.mark.parametrize("gate", ["silu", "gelu", "tanh"])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_small_errors_follow_the_limit_to_second_order(gate, correlation):
    sigmas = np.array([4e-3, 2e-3])
    law = {"k_up": 2.0, "sigma_up": sigmas / 2, "correlation": correlation, **TIED}
    found = expected_gated_mloss(gate, 3.0, sigmas, **law)
    limit = gated_mloss_limit(gate, 3.0, sigmas, **law)
    off = np.abs(found.value / limit - 1)
    assert (off < 3 * sigmas**2 * 10).all()
    # Near the ends of the second order the quarter itself is off by a few sigma.
    assert 3 < off[0] / off[1] < 5


def test_a_kink_s_limit_is_elementary():
    k, k_up, sigma, sigma_up, r = 4.0, 3.0, 1e-5, 2e-5, 0.4
    law = {"k_up": k_up, "sigma_up": sigma_up, "correlation": r}
    found = expected_gated_mloss("relu", k, sigma, **law)
    limit = gated_mloss_limit("relu", k, sigma, **law)
    V = 1 / 2
    straight = V * mean_product(r) / 2 * sigma * sigma_up
    assert_allclose(limit, straight + V * sigma**2 * k_up / (8 * k), rtol=1e-10)
    # The first order in sigma / k is what the kink hides of the straight part.
    assert_allclose(found.value, limit, rtol=4 * sigma)


@pytest.mark.parametrize("q", [3, 8])
def test_more_sources_stay_below_the_limit_s_form(q):
    law = {"q": q, "k_up": 2.0}
    found = expected_gated_mloss("silu", 3.0, 1e-4, **law)
    limit = gated_mloss_limit("silu", 3.0, 1e-4, **law)
    assert found.value + 5 / 3 * found.error < limit


@pytest.mark.slow
@settings(max_examples=10)
@given(
    gate=st.sampled_from(["silu", "relu", "tanh", "hard_swish", "identity"]),
    sources=error_laws(st.just(2)),
    r=correlations,
    logs=st.tuples(*[st.floats(-1, 1)] * 4),
)
def test_the_bound_bounds(gate, sources, r, logs):
    k, sigma, k_up, sigma_up = 10.0 ** np.array(logs)
    weights, cov = sources
    law = {"weights": weights, "cov": cov / np.trace(cov), "correlation": r}
    ups = {"k_up": k_up, "sigma_up": sigma_up}
    found = expected_gated_mloss(gate, k, sigma, **ups, **law)
    bound = gated_mloss_bound(gate, k, sigma, **ups, **law)
    assert found.value - found.error <= bound * (1 + 1e-9)


@pytest.mark.parametrize("k", [0.05, 2.0, 50.0])
@pytest.mark.parametrize("correlation", [0.0, -0.8])
def test_the_bound_s_two_parts(k, correlation):
    sigma, k_up, sigma_up, n = 1.0, 1.5, 0.7, 400_000
    law = {"k_up": k_up, "sigma_up": sigma_up, "correlation": correlation}
    bound = gated_mloss_bound("silu", k, sigma, **law, **TIED)
    w, cov = np.array(TIED["weights"]), np.array(TIED["cov"])
    merged = w @ cov @ w
    departures = np.diag(cov) - 2 * cov @ w + merged
    V = w @ departures
    tie = w @ (cov @ w - merged) ** 2
    # Slopes of SiLU, and its variation on (-k, k), from a fine table.
    x = np.linspace(-60, 60, 1_200_001)
    slope = NAMED["silu"].derivative(x)
    steep, swing, turning = np.abs(slope).max(), np.ptp(slope), np.abs(np.diff(slope))
    inside = np.linspace(-k, k, 200_001)
    mean_slope = np.abs(np.diff(NAMED["silu"](inside))).sum() / (2 * k)
    rng = np.random.default_rng(20270105)
    B = sigma_up * np.sqrt(merged) * rng.normal(size=n)
    up = np.abs(rng.uniform(-k_up, k_up, n) + B).mean()
    reached = (np.abs(B) < k_up).mean()
    tied = (correlation * sigma_up) ** 2 * reached / k_up * tie
    by_variation = turning.sum() * sigma**2 / (4 * k) * (V * up + tied)
    spread = np.sqrt(k_up**2 / 3 + sigma_up**2 * merged)
    by_slope = swing / 2 * sigma * (w @ np.sqrt(departures)) * spread
    product = mean_product(correlation) * V
    reach = np.sqrt(np.maximum(np.diag(cov), merged))
    beyond = np.sqrt(3) * steep * sigma / (2 * k) * (w @ (departures * reach))
    covariance = min(steep * product, mean_slope * product + beyond)
    claim = min(by_variation, by_slope) + sigma * sigma_up * covariance
    # |m_up| has a coefficient of variation below one; five standard errors of it.
    assert_allclose(bound, claim, rtol=5 / np.sqrt(n))


@pytest.mark.parametrize("q", [3, 8])
@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_the_bound_bounds_more_sources(q, correlation):
    law = {"q": q, "correlation": correlation}
    found = expected_gated_mloss("gelu", 3.0, 1.0, **law)
    bound = gated_mloss_bound("gelu", 3.0, 1.0, **law)
    assert found.value + 5 / 3 * found.error < bound


@pytest.mark.parametrize("gate", ["relu", "silu", "gelu", "identity"])
def test_the_bound_is_nearly_reached_on_wide_ranges(gate):
    small = expected_gated_mloss(gate, 1e4, 0.1)
    bound = gated_mloss_bound(gate, 1e4, 0.1)
    # What is lost: the law's own sigma^2 / 10 or so, and sqrt(3) sigma / k.
    assert small.value < bound + small.error
    assert bound < 1.001 * small.value


@pytest.mark.parametrize("gate", ["silu", "gelu", "relu", "identity"])
@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_a_wider_gate_does_not_remove_the_gap(gate, correlation):
    found = of(gate, 1e6, 1.0, 2.0, 0.5, correlation)
    steepness = np.abs(NAMED[gate].slopes).mean()
    floor = steepness * mean_product(correlation) / 2 * 1.0 * 0.5
    # The bend is met by a part reach / k of the inputs.
    assert_allclose(found.value, floor, rtol=1e-5)


@pytest.mark.parametrize("gate", ["silu", "gelu", "relu"])
def test_on_wide_ranges_the_two_parts_add(gate):
    k = 1e6
    found = expected_gated_mloss(gate, k, 1.0)
    straight = 1 / (2 * np.pi)
    bend = k / 2 * expected_mloss(gate, k, 1.0)
    # They meet where a bend is seen, by a part (reach + 17 sigma) / (2k) of the inputs.
    met = (np.ptp(NAMED[gate].reach) + 17) / (2 * k)
    assert_allclose(found.value, straight + bend, rtol=2 * met)
    if gate == "silu":
        assert f"{found.value:.3f}" == "0.244"


def test_relative_to_the_output():
    k, x = 100.0, np.linspace(-100, 100, 200_001)
    output = np.trapezoid(np.abs(x * expit(x)), x) / (2 * k)
    ungated = expected_mloss("silu", k, 1.0) / output
    gated = expected_gated_mloss("silu", k, 1.0).value / (output * k / 2)
    assert [f"{gated:.2e}", f"{ungated:.2e}"] == ["1.90e-04", "6.80e-05"]


def test_tied_errors_have_the_larger_gap():
    tied = [
        expected_gated_mloss("silu", 10.0, 1.0, correlation=r).value
        for r in (0.0, 0.5, 1.0)
    ]
    assert [f"{value:.3f}" for value in tied] == ["0.223", "0.241", "0.303"]


def test_more_sources_can_have_less_gap():
    found = [
        expected_gated_mloss("silu", 10.0, 1.0, q=q).value for q in (2, 3, 4, 8, 16, 64)
    ]
    stated = [0.223, 0.253, 0.257, 0.246, 0.226, 0.194]
    # Half a digit, and five of the standard errors that rtol = 1e-3 is three of.
    assert_allclose(found, stated, rtol=5 / 3 * 1e-3, atol=5e-4)


def table_rows():
    lines = [line for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("row", table_rows(), ids=lambda row: row[0])
def test_the_doc_s_table(row):
    gate, *cells = row
    ranges = [1.0, 3.0, 10.0, 100.0]
    values = [*expected_gated_mloss(gate, ranges, 1.0).value]
    values.append(expected_gated_mloss(gate, 1e6, 1.0, k_up=3.0).value)
    assert [f"{value:.4f}" for value in values] == cells


def test_the_doc_has_its_table():
    assert [row[0] for row in table_rows()] == ["silu", "gelu", "relu", "identity"]

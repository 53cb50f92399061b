"""The gated node: quadrature, sampling, limit, bound, and what the doc states."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.polynomial.hermite_e import hermegauss
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import quad
from scipy.special import expit, ndtr, roots_legendre
from strategies import EPS, error_laws, scales

from theory import expected_mloss
from theory.activations import NAMED
from theory.gated import expected_gated_mloss
from theory.gated import pair as gated_pair
from theory.gated import sampled as gated_sampled
from theory.gated.gap import gate_moves
from theory.gated.law import gated_laws
from theory.gated.limits import gated_mloss_bound, gated_mloss_limit
from theory.gated.means import mean_absolute, mean_product
from theory.gated.rows import integrate_rows

DOCS = Path(__file__).parents[2] / "docs" / "gated.md"
TIED = {"weights": [0.3, 0.7], "cov": [[1.0, -0.3], [-0.3, 2.0]]}
ONE_ERROR = {"weights": [0.3, 0.7], "cov": [[1.0, 2.0], [2.0, 4.0]]}
correlations = st.sampled_from([-1.0, -0.6, 0.0, 0.3, 0.95, 1.0])


def of(gate, k, sigma, k_up, sigma_up, correlation, **law):
    """The expectation by position, as the tables here list it."""
    ups = {"k_up": k_up, "sigma_up": sigma_up, "correlation": correlation}
    return expected_gated_mloss(gate, k, sigma, **ups, **law)


def folded(y):
    """E|y + z|."""
    return y * (2 * ndtr(y) - 1) + np.sqrt(2 / np.pi) * np.exp(-(y**2) / 2)


@pytest.mark.parametrize("centre", [0.0, 0.3, -5.0, 40.0])
@pytest.mark.parametrize("half_width", [1e-9, 0.03, 0.0499, 0.0501, 1.0, 30.0])
@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e20])
def test_the_mean_over_a_range_and_a_gaussian(centre, half_width, scale):
    def density(t):
        return folded(centre + t) / (2 * half_width)

    turn = [t for t in (-centre, -centre - 4, -centre + 4) if abs(t) < half_width]
    claim, error = quad(
        density, -half_width, half_width, points=turn or None, epsabs=0, epsrel=1e-13
    )
    arrays = (np.array([scale * a]) for a in (centre, half_width, 1.0))
    assert_allclose(
        mean_absolute(*arrays), scale * claim, rtol=1e-13 + 2 * error / claim
    )


def test_means_without_a_range_or_a_gaussian():
    centre, width, deviation = np.array(
        [[3.0, 0.0, 0.0], [-3.0, 5.0, 0.0], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0]]
    ).T
    # |c|; (c^2 + h^2) / (2h); a Gaussian alone; nothing.
    expected = [3.0, 34 / 10, 2 * np.sqrt(2 / np.pi), 0.0]
    assert_allclose(mean_absolute(centre, width, deviation), expected, rtol=4 * EPS)


@pytest.mark.parametrize("r", [-1.0, -0.4, 0.0, 0.7, 1.0])
def test_the_mean_product_is_an_angle_s(r):
    # z = R cos t and z' = R cos(t - a) with cos a = r, t uniform and E R^2 = 2.
    a = np.arccos(r)

    def product(t):
        return abs(np.cos(t) * np.cos(t - a)) / np.pi

    zeros = sorted({np.pi / 2, (a + np.pi / 2) % np.pi})
    total, error = quad(product, 0, np.pi, points=zeros)
    assert_allclose(mean_product(r), 2 * total, rtol=2 * error + 16 * EPS)


@pytest.mark.parametrize("kink", [0.003, 0.3, 0.9999])
@pytest.mark.parametrize("tolerance", [1e-5, 1e-10])
def test_a_kink_is_seen_even_at_the_end_of_a_panel(kink, tolerance):
    # Gauss's nodes miss one within 0.6 % of an end, on a panel and on its halves.
    (value,), (error,) = integrate_rows(
        lambda _, x: np.abs(x - kink), np.array([[0.0, 1.0]]), tolerance=tolerance
    )
    exact = (kink**2 + (1 - kink) ** 2) / 2
    assert abs(value - exact) <= error + 2e-13
    assert error <= 4 * tolerance


def test_rows_are_integrated_by_their_own_edges():
    edges = np.array([[0.0, 1.0, 1.0], [2.0, 0.0, 0.5]])
    value, _ = integrate_rows(
        lambda row, x: (row[:, None] + 1) * x**2, edges, tolerance=1e-12
    )
    # The nodes are moved in by 1e-13.
    assert_allclose(value, [1 / 3, 16 / 3], rtol=2e-13)


@pytest.mark.parametrize("gate", ["silu", "hard_swish", "relu"])
def test_small_moves_keep_their_digits(gate):
    f, weights = NAMED[gate], np.array([0.25, 0.75])
    m = np.array([[-3.0 - 2**-9, -1.0, -(2.0**-10), 0.5, 3.0 - 2**-10, 50.0]])
    departure = np.array([[3.0, -1.0]]) * 2**-9
    rises, gap = gate_moves(f, m, departure, weights)
    wide = f(m[..., None] + departure[:, None, :]) - f(m)[..., None]
    # A plain difference is good to the rounding of f, up to 50 here.
    assert_allclose(rises, wide, rtol=0, atol=100 * EPS)
    assert_allclose(gap, wide @ weights, rtol=0, atol=100 * EPS)
    assert gap[0, -1] == 0
    # Halving the departures of a smooth f quarters S, but for its third order.
    halved = gate_moves(f, m[:, 1:2], departure / 2, weights)[1]
    assert_allclose(4 * halved, gap[:, 1:2], rtol=2**-9, atol=0)


@settings(max_examples=20)
@given(sources=error_laws(st.just(2)), r=correlations, sigma=scales, up=scales)
def test_the_bilinear_node_is_known_exactly(sources, r, sigma, up):
    weights, cov = sources
    law = {"weights": weights, "cov": cov, "sigma_up": up, "correlation": r}
    found = expected_gated_mloss("identity", 10 * sigma, sigma, **law)
    ((one,),) = [gated_laws(1, 1, k_up=1, q=2, **law)[1]]
    exact = mean_product(r) * one.errors.jensen_variance * sigma * up
    # The Jensen variance itself keeps its digits only so far as cov does.
    lost = 64 * EPS * np.trace(cov) / one.errors.jensen_variance
    assert abs(found.value - exact) <= found.error + lost * exact
    assert found.error <= 1e-8 * exact
    limit = gated_mloss_limit("identity", 10 * sigma, sigma, **law)
    assert_allclose(limit, exact, rtol=64 * EPS)


def test_three_bilinear_sources_make_a_laplace_variable():
    # sum_i (1/3) alpha_i beta_i has two directions: z_1 z_1' + z_2 z_2' over three.
    found = expected_gated_mloss("identity", 5.0, 2.0, sigma_up=0.5, q=3)
    assert abs(found.value - 1 / 3) <= 5 / 3 * found.error
    assert found.error <= 1e-3 * found.value
    # The limit's form adds the directions up, as if their signs agreed.
    limit = gated_mloss_limit("identity", 5.0, 2.0, sigma_up=0.5, q=3)
    assert_allclose(limit, 2 / np.pi * 2 / 3, rtol=1e-9)


POINTS = [
    ("silu", 3.0, 1.0, 3.0, 1.0, 0.0, {}),
    ("silu", 2.0, 1.0, 3.0, 0.5, 0.99, TIED),
    ("gelu", 1.0, 2.0, 30.0, 0.1, -0.9, TIED),
    ("relu", 2.0, 1.0, 1.0, 2.0, 1.0, TIED),
    ("tanh", 2.4, 1.2, 18.0, 1e-3, -0.7, {}),
    ("silu", 0.1, 1.0, 0.1, 1.0, 0.6, ONE_ERROR),
    ("gelu", 1e6, 1.0, 1e6, 1.0, 0.5, TIED),
    ("silu", 1.0, 1e-6, 1.0, 1e-6, 0.3, {}),
    ("silu", 3.0, 1e-6, 3.0, 1.0, 0.3, {}),
    ("hard_swish", 1e3, 1.0, 1e-3, 1e-3, 0.3, TIED),
]


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_the_quadrature_s_error_is_honest(point, monkeypatch):
    *place, law = point
    found = of(*place, **law)
    assert 0 < found.error <= 3e-9 * found.value
    monkeypatch.setattr(gated_pair, "_INNER", 1e-12)
    monkeypatch.setattr(gated_pair, "_OUTER", 1e-11)
    tighter = of(*place, **law)
    assert tighter.error < found.error / 5
    assert abs(found.value - tighter.value) <= found.error + tighter.error


@pytest.mark.parametrize("point", POINTS)
def test_the_sampling_route_meets_the_quadrature(point):
    gate, k, sigma, k_up, sigma_up, correlation, law = point
    exact = of(*point[:-1], **law)
    rest = {"q": 2, "weights": None, "cov": None, **law}
    ups = {"k_up": k_up, "sigma_up": sigma_up, "correlation": correlation}
    (one,) = gated_laws(k, sigma, **ups, **rest)[1]
    value, error = gated_sampled.gated_sampled(NAMED[gate], one, rtol=1e-3, seed=1)
    # The error is three standard errors; five.
    assert abs(value - exact.value) <= 5 / 3 * error + exact.error


@pytest.mark.parametrize(
    ("correlation", "law"), [(0.6, {}), (-0.8, TIED)], ids=["equal", "unequal"]
)
def test_a_plain_product_rule_agrees(correlation, law):
    k, sigma, k_up, sigma_up = 2.0, 1.0, 3.0, 0.5
    found = of("silu", k, sigma, k_up, sigma_up, correlation, **law)
    coarse, fine = (
        product_rule(
            lambda x: x * expit(x), k, sigma, k_up, sigma_up, correlation, n, **law
        )
        for n in (40, 80)
    )
    # The rules converge: the finer is the better of the two.
    assert abs(fine - coarse) <= 1e-6 * fine
    assert abs(found.value - fine) <= abs(fine - coarse) + found.error


def product_rule(
    f, k, sigma, k_up, sigma_up, r, n, *, weights=(0.5, 0.5), cov=((1, 0), (0, 1))
):
    """E[D] with gate errors and g0 on a grid, the ups' mean given them closed."""
    w, cov = np.array(weights), np.array(cov)
    split = np.array([1.0, -1.0])
    variance = split @ cov @ split
    drift = w @ cov @ split / variance
    spread = np.sqrt(w @ cov @ w - drift**2 * variance)
    z, z_weight = hermegauss(n)
    node, node_weight = roots_legendre(n)
    size, size_weight = 4.25 * (1 + node), 4.25 * node_weight
    total = 0.0
    for y, share in zip([*size, *-size], [*size_weight, *size_weight], strict=True):
        d = np.sqrt(variance) * y
        merged = drift * d + spread * z
        a = sigma * np.stack([merged + w[1] * d, merged - w[0] * d], axis=1)
        h = k * node[:, None, None] + a  # [g0, merged error, source]
        moved = w * (f(h) - f(h @ w)[..., None])
        left = np.sqrt(1 - r**2) * sigma_up
        mean = mean_absolute(
            r * sigma_up / sigma * (moved * a).sum(axis=2),
            np.abs(moved.sum(axis=2)) * k_up,
            left * np.linalg.norm(moved @ np.linalg.cholesky(cov), axis=2),
        )
        total += share * np.exp(-(y**2) / 2) * (node_weight @ mean @ z_weight)
    return total / 2 / (2 * np.pi)


@pytest.mark.slow
@settings(max_examples=2, phases=[Phase.explicit, Phase.generate])
@given(sources=error_laws(st.just(2)), r=correlations, shift=st.integers(-30, 30))
def test_symmetries(sources, r, shift):
    weights, cov = sources
    law = {"weights": weights, "cov": (cov := cov / np.trace(cov))}
    one = of("relu", 2.0, 1.0, 1.5, 0.5, r, **law)
    c = 2.0**shift
    scaled_up = of("relu", 2.0, 1.0, 1.5 * c, 0.5 * c, r, **law)
    scaled_gate = of("relu", 2.0 * c, 1.0 * c, 1.5, 0.5, r, **law)
    mirrored = of("relu", 2.0, 1.0, 1.5, 0.5, -r, **law)
    turned = {"weights": weights[::-1], "cov": cov[::-1, ::-1]}
    swapped = of("relu", 2.0, 1.0, 1.5, 0.5, r, **turned)
    for factor, other in [
        (c, scaled_up),
        (c, scaled_gate),
        (1, mirrored),
        (1, swapped),
    ]:
        off = abs(other.value - factor * one.value)
        assert off <= other.error + factor * one.error


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


def test_nothing_is_lost_where_nothing_differs():
    for law in ({"q": 1}, {"q": 3, "cov": np.ones((3, 3))}):
        found = expected_gated_mloss("silu", [1.0, 2.0], 1.0, **law)
        assert_array_equal([found.value, found.error], np.zeros((2, 2)))
        assert_array_equal(gated_mloss_bound("silu", [1.0, 2.0], 1.0, **law), 0)
        assert_array_equal(gated_mloss_limit("silu", [1.0, 2.0], 1.0, **law), 0)


def test_sources_without_weight_do_not_count():
    three = expected_gated_mloss(
        "relu", 2.0, 1.0, q=3, weights=[0.4, 0, 0.6], cov=np.diag([1.0, 9.0, 2.0])
    )
    two = expected_gated_mloss(
        "relu", 2.0, 1.0, weights=[0.4, 0.6], cov=np.diag([1.0, 2.0])
    )
    assert three.value == two.value


def test_the_four_scales_broadcast_and_the_ups_default_to_the_gate_s():
    k, sigma = np.array([[2.0], [5.0]]), np.array([0.5, 1.0])
    table = expected_gated_mloss("relu", k, sigma)
    assert table.value.shape == table.error.shape == (2, 2)
    one = expected_gated_mloss("relu", 5.0, 0.5, k_up=5.0, sigma_up=0.5)
    assert table.value[1, 0] == one.value


def test_a_bare_function_is_a_gate_too():
    named = expected_gated_mloss("tanh", 2.0, 1.0, correlation=0.5)
    bare = expected_gated_mloss(np.tanh, 2.0, 1.0, correlation=0.5)
    # A fitted curvature is good to 1e-8.
    assert_allclose(bare.value, named.value, rtol=1e-8)


def test_what_was_reached_is_said(monkeypatch):
    with pytest.raises(ArithmeticError, match="rtol = 1e-15 was not reached for 'sil"):
        expected_gated_mloss("silu", 2.0, 1.0, rtol=1e-15)
    monkeypatch.setattr(gated_sampled, "_MOST", 2**10)
    with pytest.raises(ArithmeticError, match="rtol = 1e-06 was not reached for 'sil"):
        expected_gated_mloss("silu", 2.0, 1.0, q=3, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("k", 0.0),
        ("k", float("nan")),
        ("sigma", -1.0),
        ("sigma", 1e9),
        ("k_up", np.inf),
        ("sigma_up", 0.0),
        ("sigma_up", "wide"),
        ("correlation", 1.5),
        ("correlation", float("nan")),
        ("correlation", [0.1, 0.2]),
        ("q", 0),
        ("weights", [0.5, 0.6]),
        ("cov", [[1, 2], [2, 1]]),
        ("rtol", 0.0),
        ("activation", "swiglu"),
    ],
)
def test_bad_input_is_named(name, bad):
    good = {"activation": "silu", "k": 2.0, "sigma": 1.0}
    with pytest.raises(ValueError, match=name):
        expected_gated_mloss(**{**good, name: bad})
    if name != "rtol":
        with pytest.raises(ValueError, match=name):
            gated_mloss_bound(**{**good, name: bad})


def test_a_range_lost_in_its_errors_is_refused():
    with pytest.raises(ValueError, match="k must be at least 1e-06 sigma"):
        expected_gated_mloss("silu", 1e-7, 1.0)


def test_shapes_that_do_not_meet_are_refused():
    with pytest.raises(ValueError, match=r"k_up and sigma_up must broadcast"):
        expected_gated_mloss("silu", [1.0, 2.0], 1.0, k_up=[1.0, 2.0, 3.0])

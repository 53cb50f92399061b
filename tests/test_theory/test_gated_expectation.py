"""The gated expectation: quadrature, sampling, symmetries, what it takes."""

import numpy as np
import pytest
from gated_node import ONE_ERROR, TIED, correlations, of
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.polynomial.hermite_e import hermegauss
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, roots_legendre
from strategies import EPS, error_laws, scales

from theory.activations import NAMED
from theory.gated import expected_gated_mloss
from theory.gated import pair as gated_pair
from theory.gated import sampled as gated_sampled
from theory.gated.law import gated_laws
from theory.gated.limits import gated_mloss_bound, gated_mloss_limit
from theory.gated.means import mean_absolute, mean_product


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

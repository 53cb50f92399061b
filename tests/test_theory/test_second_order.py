"""The sigma^4 term: derived by sympy, and met by the exact values."""

import numpy as np
import pytest
import sympy as sp
from numpy.testing import assert_allclose
from scipy.integrate import quad

from theory import expected_mloss, mloss_bound
from theory.activations import NAMED
from theory.analysis import resolve
from theory.second_order import small_error_expansion, variation_inside

UNEQUAL = {"weights": [0.3, 0.7], "cov": [[1.0, 0.2], [0.2, 2.0]]}


def test_what_an_inflection_costs():
    # f about its inflection 0, and G the integral of S over m up to S's own root.
    w, u, shift, bend = sp.symbols("w u c d")
    slopes = sp.symbols("f0:6")
    x = sp.Symbol("x")
    series = [0 if n == 2 else slope for n, slope in enumerate(slopes)]
    f = sum(slope * x**n / sp.factorial(n) for n, slope in enumerate(series))

    def second_difference(function):
        def at(point):
            return function.subs(x, point)

        root = shift * u + bend * u**2
        value = w * at(root + (1 - w) * u) + (1 - w) * at(root - w * u) - at(root)
        return sp.Poly(sp.expand(value), u)

    zero = second_difference(f)
    assert zero.coeff_monomial(u**2) == 0
    (moved,) = sp.solve(zero.coeff_monomial(u**3), shift)
    up_to_root = second_difference(sp.integrate(f, x))
    p = w * (1 - w)
    fourth = up_to_root.coeff_monomial(u**4).subs(shift, moved)
    expected = p * (1 - p) / 72 * slopes[3]
    assert sp.simplify(up_to_root.coeff_monomial(u**2) - p / 2 * slopes[1]) == 0
    assert sp.simplify(up_to_root.coeff_monomial(u**3)) == 0
    assert sp.simplify(fourth - expected) == 0


CASES = [
    ("gelu", 2.7, 0.05),
    ("gelu", 20.0, 0.05),
    ("gelu_tanh", 3.0, 0.05),
    ("silu", 20.0, 0.1),
    ("quick_gelu", 4.0, 0.05),
    ("tanh", 2.7, 0.04),
    ("softplus", 2.7, 0.1),
    ("softplus", 6.0, 0.1),
]


@pytest.mark.parametrize("law", [{}, UNEQUAL], ids=["equal", "unequal"])
@pytest.mark.parametrize(("name", "k", "smallest"), CASES)
def test_what_remains_falls_with_the_sixth_power(name, k, smallest, law):
    sigma = smallest * 2.0 ** np.arange(3)
    exact = expected_mloss(name, k, sigma, **law)
    rest = np.abs(exact - small_error_expansion(name, k, **law)(sigma))
    powers = np.diff(np.log2(rest))
    # The power's distance from 6 falls by 4 with each halving of sigma, so the last
    # change bounds it; the quadrature adds 1e-10 of E[D].
    change = abs(powers[1] - powers[0])
    noise = 2 * (1e-10 * exact / rest).max() / np.log(2)
    assert change + noise < 0.25
    assert abs(powers[0] - 6) <= change + noise


def test_equal_weights_on_a_wide_range():
    # TV V/(4k) - V^2 sum|f'''| / (8k) at V = 1/2; GELU''' at sqrt 2 is -2 sqrt 2 phi.
    found = small_error_expansion("gelu", 50.0)
    steepness = 2 * 2 * np.sqrt(2) * np.exp(-1) / np.sqrt(2 * np.pi)
    assert_allclose(found.first, mloss_bound("gelu", 50.0, 1.0), rtol=1e-14)
    assert_allclose(found.second, -steepness / (32 * 50), rtol=1e-10)


@pytest.mark.parametrize("name", ["gelu", "mish", "sigmoid", "softplus"])
@pytest.mark.parametrize("k", [1.0, 3.0])
def test_variation_inside_is_the_integral_of_the_curvature(name, k):
    f = NAMED[name]
    turns = [x for x in f.inflections if abs(x) < k]

    def size(x):
        return float(abs(f.curvature(np.array(x))))

    value, error = quad(size, -k, k, points=turns or None, epsabs=1e-12)
    assert error < 1e-10
    assert_allclose(variation_inside(f, np.array([k]))[0], value, rtol=0, atol=1e-10)


def test_a_bare_function_has_the_expansion_of_its_activation():
    found = small_error_expansion(lambda x: np.tanh(x), [2.0, 5.0])
    expected = small_error_expansion("tanh", [2.0, 5.0])
    assert resolve(np.tanh).inflections != ()
    # A bare function is known to 1e-8, and its third derivative to the root of that.
    assert_allclose(found.first, expected.first, rtol=1e-8)
    assert_allclose(found.second, expected.second, rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small_error_expansion("relu", 2.0), "'relu' has kinks"),
        (lambda: small_error_expansion("gelu", 0.0), "k must be finite and > 0"),
        (
            lambda: small_error_expansion("gelu", 2.0, weights=[1, 0]),
            r"weights must both be > 0, got \[1.0, 0.0\]",
        ),
        (lambda: small_error_expansion("gelu", 2.0)(-1.0), "sigma must be finite"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

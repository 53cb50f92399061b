"""ReLU's closed form against 60 digits, sympy and the integral it comes from."""

import mpmath as mp
import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from numpy.testing import assert_allclose
from scipy.integrate import quad
from strategies import EPS, error_laws, ratios

from theory import expected_mloss
from theory.gelu import GELU_KERNEL
from theory.law import error_law
from theory.signed import RELU_KERNEL, signed_gap


def reference_relu(k, sigma, weights, cov):
    """sum_i w_i G(k, s_i) - G(k, s_m) at 60 digits, which no cancellation reaches."""
    with mp.workdps(60):
        k, sigma = mp.mpf(k), mp.mpf(sigma)
        w = [mp.mpf(float(value)) for value in weights]
        w = [value / mp.fsum(w) for value in w]
        c = mp.matrix(np.asarray(cov).tolist()) * sigma**2

        def mean_relu(variance):
            if variance <= 0:
                return k / 4
            s = mp.sqrt(variance)
            inside = (k**2 + s**2) / 2 * mp.erf(k / (s * mp.sqrt(2)))
            return (inside + k * s * mp.npdf(k / s)) / (2 * k)

        merged = mp.fsum(
            w[i] * c[i, j] * w[j] for i in range(len(w)) for j in range(len(w))
        )
        sources = mp.fsum(w[i] * mean_relu(c[i, i]) for i in range(len(w)))
        return float(sources - mean_relu(merged))


@pytest.mark.parametrize("q", [2, 3, 8, 64])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 1, 2, 7, 40, 1e3, 1e6, 1e8])
def test_relu_keeps_twelve_digits_where_the_difference_cancels(ratio, q):
    expected = reference_relu(ratio * 0.3, 0.3, np.full(q, 1 / q), np.eye(q))
    found = expected_mloss("relu", ratio * 0.3, 0.3, q=q)
    assert_allclose(found, expected, rtol=1e-12, atol=0)


@given(law=error_laws(), ratio=ratios)
def test_relu_keeps_twelve_digits_for_any_weights_and_covariance(law, ratio):
    weights, cov = law
    expected = reference_relu(ratio, 1.0, weights, cov)
    found = expected_mloss("relu", ratio, 1.0, q=len(weights), weights=weights, cov=cov)
    # The caller's own rounding of cov moves V by eps * max(cov): nothing can
    # answer better than that. Below k = sigma the result is of order k/sigma * V
    # less than its parts.
    given_error = 8 * len(weights) * EPS * np.max(np.abs(cov)) / (4 * ratio)
    given_error *= max(1, 1 / ratio)
    assert_allclose(found, expected, rtol=1e-12, atol=given_error)


@pytest.mark.parametrize("kernel", [RELU_KERNEL, GELU_KERNEL], ids=["relu", "gelu"])
@pytest.mark.parametrize("k", [0.3, 1.0, 5.0, 30.0])
def test_primitive_and_derivative_belong_to_the_kernel(kernel, k):
    def at(t):
        return float(kernel.value(np.float64(k), np.float64(t)))

    low, high = 1.1, 2.9
    area, error = quad(at, low, high, epsabs=0, epsrel=1e-12)
    ends = kernel.primitive(np.float64(k), np.array([low, high]))
    assert_allclose(ends[1] - ends[0], area, rtol=0, atol=error + 8 * EPS * ends[1])
    rise, error = quad(
        lambda t: float(kernel.derivative(np.float64(k), np.array([t]))[0]), low, high
    )
    assert_allclose(at(high) - at(low), rise, rtol=0, atol=error + 4 * EPS)


def test_relu_primitive_has_the_kernel_as_its_symbolic_derivative():
    k, v = sp.symbols("k v", positive=True)
    z = k / sp.sqrt(v)
    phi = sp.exp(-(z**2) / 2) / sp.sqrt(2 * sp.pi)
    primitive = (v + k**2) * sp.erf(z / sp.sqrt(2)) + 2 * k * sp.sqrt(v) * phi - k**2
    assert sp.simplify(sp.diff(primitive, v) - sp.erf(k / sp.sqrt(2 * v))) == 0


def test_gelu_is_relu_smoothed_less_a_gaussian():
    x, z = sp.symbols("x z", real=True)
    phi = sp.exp(-(z**2) / 2) / sp.sqrt(2 * sp.pi)
    smoothed = sp.integrate((x + z) * phi, (z, -x, sp.oo))
    gelu = x * (1 + sp.erf(x / sp.sqrt(2))) / 2
    difference = (smoothed - gelu).rewrite(sp.erf) - phi.subs(z, x)
    assert sp.simplify(difference) == 0


def test_heat_equation_step_behind_the_kernel():
    # G(k, v) = 1/(2k) int_{-k}^{k} E relu(x + sqrt(v) Z) dx has dG/dv = K / (4k).
    k, v = sp.symbols("k v", positive=True)
    z = k / sp.sqrt(v)
    phi = sp.exp(-(z**2) / 2) / sp.sqrt(2 * sp.pi)
    inside = (k**2 + v) / 2 * sp.erf(z / sp.sqrt(2)) + k * sp.sqrt(v) * phi
    kernel = sp.erf(z / sp.sqrt(2))
    assert sp.simplify(sp.diff(inside / (2 * k), v) - kernel / (4 * k)) == 0


def test_signed_gelu_against_quadrature_over_x():
    k, sigma, weights = 1.7, 0.8, np.array([0.2, 0.5, 0.3])
    law = error_law(3, weights, np.diag([1.0, 0.5, 2.0]))

    def smoothed(x, variance):
        t = np.sqrt(1 + variance)
        phi = np.exp(-((x / t) ** 2) / 2) / np.sqrt(2 * np.pi)
        return x * (1 + float(mp.erf(x / t / mp.sqrt(2)))) / 2 + variance * phi / t

    def gap(x):
        sources = sigma**2 * law.source_variances
        ends = sum(w * smoothed(x, v) for w, v in zip(weights, sources, strict=True))
        return ends - smoothed(x, sigma**2 * law.merged_variance)

    area, error = quad(gap, -k, k, epsrel=1e-12)
    found = signed_gap(np.float64(k), np.float64(sigma), law, GELU_KERNEL)
    assert_allclose(found, area / (2 * k), rtol=0, atol=error + 8 * EPS)

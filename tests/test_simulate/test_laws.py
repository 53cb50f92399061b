import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose

from simulate.backends import NUMPY
from simulate.inputs import Gaussian
from simulate.laws import EPS, pre_activation_law

entries = st.floats(-10, 10)
loadings = st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=entries)
)


def drawn(law, n, seed):
    """Pre-activations h [q, d, n]."""
    rng = np.random.default_rng(seed)
    v, z = rng.random((law.base, n)), rng.standard_normal((law.rank, law.base, n))
    x = law.inputs.quantile(law.scores(v, NUMPY), NUMPY)
    return law.pre_activations(x, law.mixed(z, NUMPY), NUMPY)


@given(loadings)
def test_factor_is_a_square_root_of_the_covariance(loading):
    q = len(loading)
    cov = loading @ loading.T
    factor = pre_activation_law(1.0, 1.0, q=q, cov=cov).factor
    # Dropped directions hold at most 8 q eps of the largest entry each, the
    # eigenvectors' rounding a few times less.
    assert_allclose(factor @ factor.T, cov, rtol=0, atol=32 * q**2 * EPS * cov.max())


def test_a_singular_covariance_draws_only_its_rank():
    loading = np.array([[1.0], [2.0], [-1.0]])
    law = pre_activation_law(1.0, 1.0, q=3, cov=loading @ loading.T)
    assert law.factor.shape == (3, 1)


def test_models_without_error_see_the_base():
    law = pre_activation_law(2.0, 1.0, q=3, cov=np.zeros((3, 3)))
    h = drawn(law, 1000, seed=0)
    assert (h == h[0]).all()
    assert np.abs(h).max() <= 2.0
    # The chance that 1000 uniform draws all miss the outer tenth is 0.9^1000.
    assert np.abs(h).max() > 1.8


@pytest.mark.parametrize("cov", [None, [[1.0, 0.6], [0.6, 4.0]]])
def test_second_moments_are_those_of_the_law(cov):
    k, sigma, n = 3.0, 0.5, 200_000
    h = drawn(pre_activation_law(k, sigma, cov=cov), n, seed=1)[:, 0]
    errors = np.eye(2) if cov is None else np.array(cov)
    expected = k**2 / 3 + sigma**2 * errors
    products = h[:, None] * h[None, :]
    stderr = products.std(axis=-1, ddof=1) / np.sqrt(n)
    assert (stderr < 0.01 * expected).all()
    assert (np.abs(products.mean(axis=-1) - expected) < 5 * stderr).all()


CORRELATION = np.array([[1.0, 0.8, -0.3], [0.8, 1.0, 0.1], [-0.3, 0.1, 1.0]])


def test_nodes_are_correlated_as_asked():
    cov, sigma, scale, n = np.array([[1.0, 0.6], [0.6, 4.0]]), 0.5, 2.0, 200_000
    law = pre_activation_law(
        Gaussian(scale), sigma, cov=cov, nodes=3, correlation=CORRELATION
    )
    h = drawn(law, n, seed=2).reshape(6, n)
    # Gaussian inputs are their own normal scores.
    one = scale**2 + sigma**2 * cov
    expected = np.kron(one, CORRELATION)
    products = h[:, None] * h[None, :]
    stderr = products.std(axis=-1, ddof=1) / np.sqrt(n)
    assert (stderr < 0.01 * np.abs(products).mean(axis=-1)).all()
    assert (np.abs(products.mean(axis=-1) - expected) < 5 * stderr).all()


@given(loadings, st.integers(0, 2**32 - 1))
def test_the_first_normal_of_an_aligned_law_alone_moves_the_merge(loading, seed):
    q = len(loading)
    weights = np.random.default_rng(seed).dirichlet(np.ones(q))
    law = pre_activation_law(1.0, 1.0, q=q, weights=weights, cov=loading @ loading.T)
    if not law.rank or law.merged_spread < 1e-3 * law.error_spread:
        return
    aligned = law.aligned()
    pull = weights @ aligned.factor
    # An orthogonal map loses a few roundings of the factor's size a term.
    atol = 64 * q**2 * EPS * law.error_spread
    assert_allclose(pull[0], law.merged_spread, rtol=0, atol=atol)
    assert_allclose(pull[1:], 0.0, rtol=0, atol=atol)
    assert_allclose(
        aligned.factor @ aligned.factor.T,
        law.factor @ law.factor.T,
        rtol=0,
        atol=atol * law.error_spread,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0.0}, "k must be finite and above 0, got 0.0"),
        ({"k": np.nan}, "k must be finite and above 0, got nan"),
        ({"sigma": -1.0}, "sigma must be finite and above 0, got -1.0"),
        ({"sigma": np.inf}, "sigma must be finite and above 0, got inf"),
        ({"q": 0}, "q must be at least 1, got 0"),
        ({"weights": [0.2, 0.3, 0.5]}, r"weights must have shape \(2,\) for q=2"),
        ({"weights": [0.5, 0.6]}, "weights must sum to 1"),
        ({"weights": [1.5, -0.5]}, "weights must be at least 0"),
        ({"weights": [np.nan, 1.0]}, "weights must be finite"),
        ({"cov": np.eye(3)}, r"cov must have shape \(2, 2\) for q=2"),
        ({"cov": [[1.0, 0.5], [0.0, 1.0]]}, "cov must be symmetric"),
        ({"cov": [[1.0, 2.0], [2.0, 1.0]]}, "cov must be positive semi-definite"),
        ({"cov": [[1.0, np.inf], [np.inf, 1.0]]}, "cov must be finite"),
        ({"nodes": 0}, "nodes must be at least 1, got 0"),
        (
            {"nodes": 2, "correlation": np.eye(3)},
            r"correlation must have shape \(2, 2\)",
        ),
        (
            {"nodes": 2, "correlation": 1.5},
            "correlation must be positive semi-definite",
        ),
        ({"nodes": 3, "correlation": -0.6}, "correlation must be positive semi-def"),
        ({"nodes": 1, "correlation": [[2.0]]}, "correlation must have ones"),
    ],
)
def test_values_outside_the_domain_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        pre_activation_law(**{"k": 1.0, "sigma": 1.0, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": "1"}, "k must be a real number, got '1'"),
        ({"sigma": [1.0, 2.0]}, "sigma must be a real number"),
        ({"q": 2.0}, "q must be an integer, got 2.0"),
    ],
)
def test_wrong_types_are_named(arguments, message):
    with pytest.raises(TypeError, match=message):
        pre_activation_law(**{"k": 1.0, "sigma": 1.0, **arguments})


def test_normalised_weights_are_accepted():
    weights = np.random.default_rng(0).random(50)
    weights /= weights.sum()
    assert pre_activation_law(1.0, 1.0, q=50, weights=weights).weights is not None

import math
from functools import partial

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

import theory
from mloss import node_mloss
from mloss.activations import resolve
from mloss.predict import Moments, predict

EPS = torch.finfo(torch.float64).eps


def moments(k, sigma, *, cov=None, q=2, weights=None):
    """Moments of the paper's own law, one node for each k and sigma."""
    cov = torch.eye(q, dtype=torch.float64) if cov is None else cov
    w = [1 / len(cov)] * len(cov) if weights is None else weights
    w = torch.as_tensor(w, dtype=torch.float64)
    square = torch.tensor(sigma, dtype=torch.float64).square()
    return Moments(
        base_square=torch.tensor(k, dtype=torch.float64).square() / 3,
        jensen_variance=square * (w @ cov.diagonal() - w @ cov @ w),
        shift_square=square * cov.diagonal().mean(),
        covariance=square.mean() * cov,
    )


K, SIGMA = [5.0, 2.0, 10.0], [0.5, 0.1, 1.0]


@pytest.mark.parametrize(("name", "q"), [("relu", 2), ("relu", 5), ("gelu", 2)])
def test_under_the_papers_law_it_is_the_exact_expectation(name, q):
    known = moments(K, SIGMA, q=q)
    ours = predict(resolve(name), known)
    # k and sigma come back from their squares to a few roundings.
    expected = torch.from_numpy(theory.expected_mloss(name, K, SIGMA, q=q))
    assert ours.exact
    assert_close(
        ours.value, expected, rtol=1e3 * EPS if name == "relu" else 1e-9, atol=0
    )
    printed = torch.from_numpy(theory.paper_approximation(name, K, SIGMA))
    assert_close(ours.printed, printed, rtol=32 * EPS, atol=0)


@pytest.mark.parametrize(("name", "q"), [("silu", 2), ("gelu", 3), ("tanh", 4)])
def test_without_an_exact_form_it_is_the_bound(name, q):
    known = moments(K, SIGMA, q=q)
    ours = predict(resolve(name), known)
    assert not ours.exact
    expected = torch.from_numpy(theory.mloss_bound(name, K, SIGMA, q=q))
    assert_close(ours.value, expected, rtol=32 * EPS, atol=0)
    assert (ours.printed is None) == (name != "gelu")


def test_leaky_relu_at_any_slope():
    known = moments(K, SIGMA)
    slope = partial(functional.leaky_relu, negative_slope=0.3)
    ours = predict(slope, known)
    relu = predict(torch.relu, known)
    assert_close(ours.value, 0.7 * relu.value, rtol=8 * EPS, atol=0)


def test_an_activation_theory_does_not_know():
    known = moments(K, SIGMA)
    ours = predict(torch.sin, known)
    assert (ours.value, ours.exact, ours.printed) == (None, False, None)


def test_nodes_at_rest_have_no_loss_and_a_silent_base_is_no_error():
    known = moments([0.0, 0.0, 5.0], [0.0, 1.0, 0.0])
    for name in ("relu", "gelu", "silu"):
        ours = predict(resolve(name), known)
        assert ours.value[[0, 2]].tolist() == [0, 0]
        assert 0 < ours.value[1] < math.inf


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["relu", "gelu"])
def test_drawn_from_its_law_the_measured_loss_is_the_predicted_one(name, seed):
    # Correlated sources, unequal weights; one correlation in the whole layer.
    generator = torch.Generator().manual_seed(seed)
    n, k = 400_000, 4.0
    cov = torch.tensor([[1.0, 0.5], [0.5, 2.0]], dtype=torch.float64)
    x = k * (2 * torch.rand(n, generator=generator, dtype=torch.float64) - 1)
    noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    h = x + 0.4 * (noise @ torch.linalg.cholesky(cov).T).T
    weights = [0.3, 0.7]
    loss = node_mloss(h[..., None], name, weights=weights).squeeze()
    known = moments([k], [0.4], cov=cov, weights=weights)
    ours = predict(resolve(name), known, weights=weights)
    stderr = loss.std().item() / math.sqrt(n)
    # A standard error that could refute: the paper's constant is off by 32 per cent.
    assert stderr < 1e-2 * ours.value.item()
    # Five standard errors fail one run in 1.7 million by chance.
    assert abs(loss.mean().item() - ours.value.item()) < 5 * stderr

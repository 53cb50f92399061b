"""Expected M-Loss of a gated node f(g) * u by plain Monte Carlo from its definition."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from math import sqrt
from operator import add

import numpy as np
import numpy.typing as npt

from simulate.activations import Activation, Array, evaluate, resolve
from simulate.estimators import Estimate
from simulate.inputs import positive
from simulate.laws import positive_integer, pre_activation_law
from simulate.moments import Moments

_BLOCK = 2**14  # pre-activations of either kind held at once


@dataclass(frozen=True, eq=False)
class GatedLaw:
    """g_i = g0 + a_i and u_i = u0 + b_i for q models, uniform bases, Gaussian errors.

    `root` [q, rank] is a square root of the covariance of either error in units of
    its own sigma; `correlation` is that of a and b within a model.
    """

    k: float
    sigma: float
    k_up: float
    sigma_up: float
    correlation: float
    weights: Array
    root: Array

    def sample(self, n: int, *, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw n independent inputs' gates and ups, each [q, n]."""
        shared = rng.standard_normal((self.root.shape[1], n))
        own = rng.standard_normal((self.root.shape[1], n))
        r = self.correlation
        tied = r * shared + sqrt((1 - r) * (1 + r)) * own
        # einsum, not BLAS: its sums do not depend on the number of threads.
        a = self.sigma * np.einsum("ir,rn->in", self.root, shared)
        b = self.sigma_up * np.einsum("ir,rn->in", self.root, tied)
        g0 = rng.uniform(-self.k, self.k, size=n)
        u0 = rng.uniform(-self.k_up, self.k_up, size=n)
        return g0 + a, u0 + b


def gated_law(
    k: float,
    sigma: float,
    *,
    k_up: float | None = None,
    sigma_up: float | None = None,
    correlation: float = 0.0,
    q: int = 2,
    weights: npt.ArrayLike | None = None,
    cov: npt.ArrayLike | None = None,
) -> GatedLaw:
    """Validate the parameters and return their law; k_up and sigma_up default to k's.

    Raises ValueError or TypeError naming the argument.
    """
    errors = pre_activation_law(k, sigma, q=q, weights=weights, cov=cov)
    correlation = float(correlation)
    if not -1 <= correlation <= 1:
        raise ValueError(f"correlation must lie in [-1, 1], got {correlation}")
    return GatedLaw(
        k=positive("k", k),
        sigma=errors.sigma,
        k_up=positive("k_up", k if k_up is None else k_up),
        sigma_up=positive("sigma_up", sigma if sigma_up is None else sigma_up),
        correlation=correlation,
        weights=errors.weights,
        root=errors.root,
    )


def estimate_gated_mloss(
    activation: str | Activation,
    k: float,
    sigma: float,
    *,
    k_up: float | None = None,
    sigma_up: float | None = None,
    correlation: float = 0.0,
    q: int = 2,
    weights: npt.ArrayLike | None = None,
    cov: npt.ArrayLike | None = None,
    n: int,
    rng: np.random.Generator,
) -> Estimate:
    """E|f(m_g) m_u - sum_i w_i f(g_i) u_i| from n independent samples.

    Gates g_i = g0 + a_i with g0 ~ U(-k, k), ups u_i = u0 + b_i with
    u0 ~ U(-k_up, k_up); m_g and m_u are their weighted means. The errors a and b are
    Gaussian with covariances sigma^2 cov and sigma_up^2 cov, and
    correlation * sigma * sigma_up * cov between them. The up's k and sigma default to
    the gate's, `weights` [q] to 1/q each, `cov` [q, q] to the identity. `activation`
    is f, a name or an elementwise function of an array.

    Memory does not grow with n. Raises ValueError or TypeError naming the argument
    that is at fault.
    """
    f = resolve(activation)
    law = gated_law(
        k,
        sigma,
        k_up=k_up,
        sigma_up=sigma_up,
        correlation=correlation,
        q=q,
        weights=weights,
        cov=cov,
    )
    n = positive_integer("n", n, least=2)
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator, got {rng!r}")
    blocks = (law.sample(size, rng=rng) for size in _sizes(n, len(law.weights)))
    moments = reduce(
        add, (Moments.of(gated_mloss(f, g, u, weights=law.weights)) for g, u in blocks)
    )
    return Estimate(moments.mean, moments.stderr, n, moments.degrees)


def gated_mloss(f: Activation, g: Array, u: Array, *, weights: Array) -> Array:
    """|f(m_g) m_u - sum_i w_i f(g_i) u_i| of gates and ups [q, n], giving [n]."""
    merged = evaluate(f, _weighted_mean(weights, g)) * _weighted_mean(weights, u)
    ensembled = _weighted_mean(weights, evaluate(f, g) * u)
    gap: Array = np.abs(merged - ensembled)
    return gap


def _weighted_mean(weights: Array, values: Array) -> Array:
    return np.asarray(np.einsum("i,in->n", weights, values))


def _sizes(n: int, q: int) -> Iterator[int]:
    block = max(1, _BLOCK // q)
    while n > 0:
        yield min(block, n)
        n -= block

"""Expected node M-Loss by plain Monte Carlo from its definition (paper Eq. 4)."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import numpy.typing as npt

from simulate.activations import Activation, Array, evaluate, resolve
from simulate.laws import Law, positive_integer, pre_activation_law
from simulate.moments import Moments

METHODS = ("mc",)
BLOCK = 2**14  # pre-activations held at once: 128 KiB, inside the second-level cache


@dataclass(frozen=True)
class Estimate:
    """A sample mean of M-Loss, its standard error and the number of samples."""

    value: float
    stderr: float
    n: int


def estimate_mloss(
    activation: str | Activation,
    k: float,
    sigma: float,
    *,
    q: int = 2,
    weights: npt.ArrayLike | None = None,
    cov: npt.ArrayLike | None = None,
    n: int,
    rng: np.random.Generator,
    method: str = "mc",
) -> Estimate:
    """E|f(sum_i w_i h_i) - sum_i w_i f(h_i)| from n independent samples.

    The law is the paper's (section 4): h_i = x + e_i for i = 1..q, x ~ U(-k, k) and
    e ~ N(0, sigma^2 cov). `weights` [q] default to 1/q each and `cov` [q, q] to the
    identity. `activation` is a name or an elementwise function of an array.

    The value carries the units of the activation's output. Memory does not grow with
    n, and the result depends on nothing but the arguments and the state of `rng`.
    Raises ValueError or TypeError naming the argument that is at fault.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    f = resolve(activation)
    law = pre_activation_law(k, sigma, q=q, weights=weights, cov=cov)
    n = positive_integer("n", n, least=2)
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator, got {rng!r}")
    moments = reduce(
        add,
        (
            Moments.of(node_mloss(f, law.sample(size, rng=rng), weights=law.weights))
            for size in block_sizes(n, law)
        ),
    )
    return Estimate(moments.mean, moments.stderr, n)


def node_mloss(f: Activation, h: Array, *, weights: Array) -> Array:
    """|f(sum_i w_i h_i) - sum_i w_i f(h_i)| of pre-activations h [q, n], giving [n]."""
    merged = evaluate(f, _weighted_mean(weights, h))
    ensembled = _weighted_mean(weights, evaluate(f, h))
    return np.abs(merged - ensembled)


def block_sizes(n: int, law: Law) -> Iterator[int]:
    """Split n samples into blocks of at most `BLOCK` pre-activations."""
    block = max(1, BLOCK // len(law.weights))
    while n > 0:
        yield min(block, n)
        n -= block


def _weighted_mean(weights: Array, values: Array) -> Array:
    # einsum, not BLAS: its sums do not depend on the number of threads.
    return np.asarray(np.einsum("i,in->n", weights, values))

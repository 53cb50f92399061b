"""The law of a layer's pre-activations in q models (section 4), ready to sample."""

import operator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from simulate.activations import Array
from simulate.backends import Backend, Block
from simulate.inputs import InputLaw, InputLike, input_law, normal_quantile, positive

EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Law:
    """h_ij = x_j + e_ij for q models and d nodes, e = sigma factor z.

    z is standard normal in [rank] at every node, so `factor` [q, rank] is a square
    root of the covariance of one node's errors in units of sigma^2; None stands for
    the identity. `mixing` [d, base] is a square root of the correlation between
    nodes: of the errors, and of the normal scores of the inputs (a Gaussian copula).
    None stands for independent nodes. `weights` [q] are the merging weights.
    """

    inputs: InputLaw
    sigma: float
    weights: Array
    factor: Array | None
    nodes: int = 1
    mixing: Array | None = None

    @property
    def rank(self) -> int:
        """Independent errors at a node."""
        return len(self.weights) if self.factor is None else self.factor.shape[1]

    @property
    def base(self) -> int:
        """Independent variables behind the nodes of a layer."""
        return self.nodes if self.mixing is None else self.mixing.shape[1]

    def scores(self, v: Block, ops: Backend) -> Block:
        """Ranks of the nodes' inputs [d, n] from independent uniforms v [base, n]."""
        if self.mixing is None:
            return v
        return ops.special.ndtr(self.mixed(normal_quantile(v, ops), ops))

    def mixed(self, z: Block, ops: Backend) -> Block:
        """Correlate independent normals z [..., base, n] between nodes [..., d, n]."""
        if self.mixing is None:
            return z
        return ops.xp.einsum("db,...bn->...dn", ops.asarray(self.mixing), z)

    def over_nodes(self, step: Block, ops: Backend) -> Block:
        """Steps of all nodes' normals [..., d, n] when one node of each sample moves.

        `step` is that node's and 0 elsewhere; the others follow in the mean.
        """
        if self.mixing is None:
            return step
        correlation = ops.asarray(self.mixing @ self.mixing.T)
        return ops.xp.einsum("ij,...jn->...in", correlation, step)

    def pre_activations(self, x: Block, z: Block, ops: Backend) -> Block:
        """h [q, d, n] from inputs x [d, n] and normals z [rank, d, n].

        It may reuse the memory of z.
        """
        if self.factor is not None:
            # einsum, not BLAS: its sums do not depend on the number of threads.
            z = ops.xp.einsum("ir,rdn->idn", ops.asarray(self.factor), z)
        z *= self.sigma
        z += x
        return z

    def aligned(self) -> "Law":
        """The same law with a factor whose first normal alone moves the merge.

        w' factor = (s, 0, ..., 0) with s^2 = w' C w; the other normals move the models
        apart, the ones that do so most first.
        """
        factor = self.root
        pull = self.weights @ factor
        if not pull.any():
            return replace(self, factor=factor)
        complement = np.linalg.svd(pull[None])[2][1:]
        apart = np.sqrt(self.weights)[:, None] * (factor @ complement.T)
        others = np.linalg.svd(apart)[2] @ complement
        first = pull / np.linalg.norm(pull)
        return replace(self, factor=factor @ np.vstack([first, others]).T)

    def apart(self, z: Block, ops: Backend) -> Block:
        """How far the q models of normals z [rank, d, n] are from their merge."""
        factor = self.sigma * (self.root - self.weights @ self.root)
        return ops.xp.einsum("ir,rdn->idn", ops.asarray(factor), z)

    @cached_property
    def root(self) -> Array:
        """The factor, also where it is the identity."""
        return np.eye(len(self.weights)) if self.factor is None else self.factor

    @cached_property
    def error_spread(self) -> float:
        """Standard deviation of the model's error that varies most."""
        return self.sigma * float(np.linalg.norm(self.root, axis=1).max(initial=0.0))

    @cached_property
    def merged_spread(self) -> float:
        """Standard deviation of the merged error, sigma sqrt(w' C w)."""
        return self.sigma * float(np.linalg.norm(self.weights @ self.root))

    @cached_property
    def difference_spread(self) -> float:
        """Root mean square of h_i - m, sigma sqrt(sum_i w_i C_ii - w' C w)."""
        apart = self.root - self.weights @ self.root
        return self.sigma * float(np.sqrt(self.weights @ (apart * apart).sum(axis=1)))

    @cached_property
    def apart_with_merge(self) -> float:
        """How far a merged error of one standard deviation moves a model off the merge.

        Of an aligned law.
        """
        first = self.root[:, 0]
        return self.sigma * float(np.abs(first - self.weights @ first).max())


def pre_activation_law(
    k: InputLike,
    sigma: float,
    *,
    q: int = 2,
    weights: npt.ArrayLike | None = None,
    cov: npt.ArrayLike | None = None,
    nodes: int = 1,
    correlation: npt.ArrayLike = 0.0,
) -> Law:
    """Validate the parameters and return their law.

    `k` is a half-width or an input law. `weights` [q] default to 1/q each; `cov`
    [q, q], in units of sigma^2 and possibly singular, to the identity. `correlation`
    is a number or a matrix [nodes, nodes]. Raises ValueError or TypeError naming the
    argument.
    """
    q = positive_integer("q", q)
    nodes = positive_integer("nodes", nodes)
    return Law(
        inputs=input_law(k),
        sigma=positive("sigma", sigma),
        weights=_checked_weights(weights, q),
        factor=None if cov is None else _square_root("cov", cov, ("q", q)),
        nodes=nodes,
        mixing=_mixing(correlation, nodes),
    )


def positive_integer(name: str, value: int, *, least: int = 1) -> int:
    """Return value as an int, refused below `least` or when it is not an integer."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def _checked_weights(weights: npt.ArrayLike | None, q: int) -> Array:
    if weights is None:
        return np.full(q, 1 / q)
    w = _finite("weights", weights)
    if w.shape != (q,):
        raise ValueError(f"weights must have shape ({q},) for q={q}, got {w.shape}")
    if (w < 0).any():
        raise ValueError(f"weights must be at least 0, got {w.tolist()}")
    # Rounding, float32's too, is divided out; what cannot be rounding is refused.
    if abs(w.sum() - 1) > 1e-6:
        raise ValueError(f"weights must sum to 1, got {w.tolist()} (sum {w.sum()})")
    return np.asarray(w / w.sum())


def _mixing(correlation: npt.ArrayLike, nodes: int) -> Array | None:
    c = _finite("correlation", correlation)
    if c.ndim == 0:
        c = np.where(np.eye(nodes, dtype=bool), 1.0, c)
    if c.shape == (nodes, nodes) and (np.diag(c) != 1).any():
        raise ValueError(
            f"correlation must have ones on its diagonal, got {np.diag(c).tolist()}"
        )
    root = _square_root("correlation", c, ("nodes", nodes))
    return None if (c == np.eye(nodes)).all() else root


def _square_root(name: str, matrix: npt.ArrayLike, size: tuple[str, int]) -> Array:
    """Return L [q, rank] with L L' = cov, leaving out directions without variance."""
    c = _finite(name, matrix)
    of, q = size
    if c.shape != (q, q):
        raise ValueError(
            f"{name} must have shape ({q}, {q}) for {of}={q}, got {c.shape}"
        )
    # Forming C = A A' and its eigenvalues loses a few roundings of |C| a term.
    rounding = 8 * q * EPS * float(np.abs(c).max())
    if np.abs(c - c.T).max() > rounding:
        raise ValueError(f"{name} must be symmetric, got {c.tolist()}")
    variances, directions = np.linalg.eigh(c)
    if variances[0] < -rounding:
        raise ValueError(
            f"{name} must be positive semi-definite, "
            f"got the eigenvalue {variances[0]:.6g}"
        )
    kept = variances > rounding
    # Eigenvectors have either sign; one is chosen, so that a seed means one thing.
    directions *= np.where(directions.sum(axis=0) < 0, -1.0, 1.0)
    return np.asarray(directions[:, kept] * np.sqrt(variances[kept]))


def _finite(name: str, values: npt.ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array.tolist()}")
    return array

"""The paper's probability law of pre-activations (section 4), ready to sample."""

import operator
from dataclasses import dataclass
from numbers import Real

import numpy as np
import numpy.typing as npt

from simulate.activations import Array

EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Law:
    """h_i = x + e_i for q models, with x ~ U(-k, k) and e = sigma factor z.

    z is standard normal [rank], so `factor` [q, rank] holds a square root of the
    errors' covariance in units of sigma^2; None stands for the identity. `weights`
    [q] are the merging weights.
    """

    k: float
    sigma: float
    weights: Array
    factor: Array | None

    def sample(self, n: int, *, rng: np.random.Generator) -> Array:
        """Draw n independent inputs' pre-activations h [q, n]."""
        q = len(self.weights)
        x = rng.random(n)
        x -= 0.5
        x *= 2 * self.k
        if self.factor is None:
            h = rng.standard_normal((q, n))
        else:
            # einsum, not BLAS: its sums do not depend on the number of threads.
            z = rng.standard_normal((self.factor.shape[1], n))
            h = np.einsum("ir,rn->in", self.factor, z)
        h *= self.sigma
        h += x
        return h


def pre_activation_law(
    k: float,
    sigma: float,
    *,
    q: int = 2,
    weights: npt.ArrayLike | None = None,
    cov: npt.ArrayLike | None = None,
) -> Law:
    """Validate the parameters and return their law.

    `weights` [q] default to 1/q each; `cov` [q, q], in units of sigma^2 and possibly
    singular, to the identity. Raises ValueError or TypeError naming the argument.
    """
    q = positive_integer("q", q)
    return Law(
        k=_positive("k", k),
        sigma=_positive("sigma", sigma),
        weights=_checked_weights(weights, q),
        factor=None if cov is None else _square_root(cov, q),
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


def _positive(name: str, value: float) -> float:
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    if not 0 < value < np.inf:
        raise ValueError(f"{name} must be finite and above 0, got {value!r}")
    return float(value)


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


def _square_root(cov: npt.ArrayLike, q: int) -> Array:
    """Return L [q, rank] with L L' = cov, leaving out directions without variance."""
    c = _finite("cov", cov)
    if c.shape != (q, q):
        raise ValueError(f"cov must have shape ({q}, {q}) for q={q}, got {c.shape}")
    # Forming C = A A' and its eigenvalues loses a few roundings of |C| a term.
    rounding = 8 * q * EPS * float(np.abs(c).max())
    if np.abs(c - c.T).max() > rounding:
        raise ValueError(f"cov must be symmetric, got {c.tolist()}")
    variances, directions = np.linalg.eigh(c)
    if variances[0] < -rounding:
        raise ValueError(
            f"cov must be positive semi-definite, got the eigenvalue {variances[0]:.6g}"
        )
    kept = variances > rounding
    return np.asarray(directions[:, kept] * np.sqrt(variances[kept]))


def _finite(name: str, values: npt.ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array.tolist()}")
    return array

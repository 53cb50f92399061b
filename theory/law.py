r"""The law of the pre-activations that every expectation here is taken under.

The base model sees x ~ U(-k, k). Source i sees h_i = x + e_i, with errors
e ~ N(0, sigma^2 cov) independent of x (paper Section 4: two sources, cov = I).
The merged node sees m = sum_i w_i h_i.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PairLaw:
    """Two sources seen by u = e_1 - e_2: u has standard deviation `deviation`.

    Given u the merged error has mean `drift` * u and standard deviation `spread`.
    """

    deviation: float
    drift: float
    spread: float

    @property
    def looseness(self) -> float:
        """Over how much of u's deviation an end of the range of x passes a bend of |S|.

        Given u the end is spread about drift * u +- k, and bends move at most as fast
        as u. 1/2 for two equal, independent sources; 0 where m follows u.
        """
        return self.spread / (self.deviation * (1 + abs(self.drift)))


@dataclass(frozen=True)
class ErrorLaw:
    """Merging weights [q] and error covariance [q, q], in units of sigma^2."""

    weights: Array
    cov: Array

    @property
    def q(self) -> int:
        """The number of source models."""
        return len(self.weights)

    def active(self) -> "ErrorLaw":
        """The law of the sources that have a positive weight."""
        kept = self.weights > 0
        return ErrorLaw(self.weights[kept], self.cov[np.ix_(kept, kept)])

    @property
    def source_variances(self) -> Array:
        """Var e_i [q]."""
        return np.diagonal(self.cov)

    @property
    def merged_variance(self) -> float:
        """Var sum_i w_i e_i = w' C w."""
        return max(float(self.weights @ self.cov @ self.weights), 0.0)

    @property
    def jensen_variance(self) -> float:
        """V = sum_i w_i Var(e_i - sum_j w_j e_j): what averaging the inputs removes.

        As 1/2 sum_ij w_i w_j Var(e_i - e_j), which does not cancel when the
        sources move together.
        """
        diagonal = self.source_variances
        spread = diagonal[:, None] - self.cov + (diagonal[None, :] - self.cov.T)
        return max(float(self.weights @ spread @ self.weights) / 2, 0.0)

    def pair(self) -> PairLaw:
        """The law of two sources' difference and merged error, in units of sigma."""
        assert self.q == 2, "there is one difference"
        (c11, c12), (c21, c22) = self.cov
        variance = (c11 - c12) + (c22 - c21)
        drift = self.weights @ [c11 - c12, c21 - c22] / variance
        given = max(c11 * c22 - c12 * c21, 0) / variance
        return PairLaw(float(np.sqrt(variance)), float(drift), float(np.sqrt(given)))


def error_law(q: Any, weights: ArrayLike | None, cov: ArrayLike | None) -> ErrorLaw:
    """Validate q, weights [q] and cov [q, q]; equal weights and identity by default.

    Raises ValueError naming the argument: q below 1 or not whole, weights that are
    negative or do not sum to 1, a covariance that is not symmetric positive
    semi-definite, a shape that disagrees with q, anything not finite.
    """
    q = _count(q)
    w = np.full(q, 1 / q) if weights is None else _finite("weights", weights, (q,))
    if (w < 0).any():
        raise ValueError(f"weights must be >= 0, got {w.tolist()}")
    # Rounding, float32's too, is divided out; what cannot be rounding is refused.
    if abs(w.sum() - 1) > 1e-6:
        raise ValueError(f"weights must sum to 1, got {w.tolist()} with sum {w.sum()}")
    c = np.eye(q) if cov is None else _finite("cov", cov, (q, q))
    scale = float(np.abs(c).max())
    rounding = 4 * q * np.finfo(float).eps * scale
    if np.abs(c - c.T).max() > rounding:
        raise ValueError("cov must be symmetric")
    lowest = float(np.linalg.eigvalsh((c + c.T) / 2)[0])
    if lowest < -q * rounding:
        raise ValueError(
            f"cov must be positive semi-definite, got the eigenvalue {lowest:.3g}"
        )
    return ErrorLaw(w / w.sum(), c)


def positive(name: str, value: ArrayLike) -> Array:
    """Return the value as a float64 array; ValueError unless all finite and > 0."""
    array = _floats(name, value)
    if not (np.isfinite(array) & (array > 0)).all():
        bad = array[~(np.isfinite(array) & (array > 0))].flat[0]
        raise ValueError(f"{name} must be finite and > 0, got {bad}")
    return array


def scales(k: ArrayLike, sigma: ArrayLike) -> tuple[Array, Array]:
    """Validate k and sigma and broadcast them against each other."""
    half_width, deviation = positive("k", k), positive("sigma", sigma)
    try:
        both = np.broadcast_arrays(half_width, deviation)
    except ValueError:
        raise ValueError(
            f"k and sigma must broadcast against each other, got the shapes "
            f"{half_width.shape} and {deviation.shape}"
        ) from None
    return both[0], both[1]


def _count(q: Any) -> int:
    if isinstance(q, bool) or not isinstance(q, (int, np.integer)) or q < 1:
        raise ValueError(
            f"q counts the source models and must be a whole number >= 1, got {q!r}"
        )
    return int(q)


def _floats(name: str, value: ArrayLike) -> Array:
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be real numbers, got {value!r}") from None


def _finite(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Array:
    array = _floats(name, value)
    if array.shape != shape:
        raise ValueError(
            f"{name} must have shape {list(shape)} for q = {shape[0]} sources, "
            f"got {list(array.shape)}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array.tolist()}")
    return array

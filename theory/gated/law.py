"""The law of a gated node, f(g) * u, whose two pre-activations both carry errors.

The base model sees g0 ~ U(-k, k) and u0 ~ U(-k_up, k_up), independent. Source i sees
g0 + a_i and u0 + b_i. The errors are Gaussian: Cov(a_i, a_j) = sigma^2 C_ij,
Cov(b_i, b_j) = sigma_up^2 C_ij and Cov(a_i, b_j) = correlation sigma sigma_up C_ij.
docs/gated.md, section 1.
"""

from dataclasses import dataclass
from math import sqrt
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike

from theory.law import Array, ErrorLaw, error_law, positive

_SMALLEST, _LARGEST = 1e-30, 1e30  # their products stay far from float64's ends
_WIDEST = 1e8  # sigma, past which a bend of f is lost among the panels
_NARROWEST = 1e-6  # k in units of sigma, below which its range is lost


@dataclass(frozen=True)
class GatedLaw:
    """One point: the ranges and scales of gate and up, and the sources' errors."""

    errors: ErrorLaw
    k: float
    sigma: float
    k_up: float
    sigma_up: float
    correlation: float

    @property
    def follows(self) -> float:
        """E[b | a] / a, as the errors of a source go together."""
        return self.correlation * self.sigma_up / self.sigma

    @property
    def freedom(self) -> float:
        """The part of an up error's deviation that its gate error leaves open."""
        return sqrt((1 - self.correlation) * (1 + self.correlation))


def gated_laws(
    k: ArrayLike,
    sigma: ArrayLike,
    *,
    k_up: ArrayLike | None,
    sigma_up: ArrayLike | None,
    correlation: float,
    q: int,
    weights: ArrayLike | None,
    cov: ArrayLike | None,
) -> tuple[tuple[int, ...], list[GatedLaw]]:
    """Validate the arguments and return a shape and the law at each of its points.

    The four scales broadcast; an up scale of None is the gate's. The laws hold the
    sources of positive weight. Raises ValueError naming the argument that is not of a
    law.
    """
    errors = error_law(q, weights, cov).active()
    together = _correlation(correlation)
    named = {
        "k": k,
        "sigma": sigma,
        "k_up": k if k_up is None else k_up,
        "sigma_up": sigma if sigma_up is None else sigma_up,
    }
    scales = _broadcast(named)
    if (scales[0] < _NARROWEST * scales[1]).any():
        raise ValueError(f"k must be at least {_NARROWEST:g} sigma for a gated node")
    points = np.stack([array.ravel() for array in scales], axis=1).tolist()
    laws = [GatedLaw(errors, a, b, c, d, together) for a, b, c, d in points]
    return scales[0].shape, laws


def _broadcast(named: dict[str, ArrayLike]) -> tuple[Array, ...]:
    arrays = {name: positive(name, value) for name, value in named.items()}
    for name, array in arrays.items():
        largest = _WIDEST if name == "sigma" else _LARGEST
        outside = (array < _SMALLEST) | (array > largest)
        if outside.any():
            raise ValueError(
                f"{name} must lie between {_SMALLEST:g} and {largest:g} for a gated "
                f"node, got {array[outside].flat[0]:g}"
            )
    try:
        return tuple(np.broadcast_arrays(*arrays.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(
            f"k, sigma, k_up and sigma_up must broadcast together, got {shapes}"
        ) from None


def _correlation(correlation: float) -> float:
    if isinstance(correlation, bool) or not isinstance(correlation, Real):
        raise ValueError(f"correlation must be a real number, got {correlation!r}")
    if not -1 <= correlation <= 1:
        raise ValueError(f"correlation must lie in [-1, 1], got {correlation}")
    return float(correlation)

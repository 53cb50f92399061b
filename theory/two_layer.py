r"""Two-layer networks whose merged-vs-ensemble gap is known exactly.

The gap is merged output less ensemble output. A linear network has one although it
has no M-Loss; with a ReLU in between, M-Loss and the interaction between the layers
separate. Proofs in docs/depth.md; `python -m theory derive two_layer` verifies them.
"""

from dataclasses import dataclass
from math import isfinite, pi, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf, ndtr

from theory.distribution import mloss_second_moment
from theory.expectation import expected_mloss
from theory.law import error_law, positive, scales
from theory.signed import phi, widths

Array = NDArray[np.float64]


def linear_gap_second_moment(
    input_norm: ArrayLike,
    *,
    hidden: int,
    outputs: int,
    inner_sigma: ArrayLike,
    outer_sigma: ArrayLike,
    q: int = 2,
    weights: ArrayLike | None = None,
) -> Array:
    r"""E ||gap||^2 of x -> B A x, A [hidden, inputs] and B [outputs, hidden].

    The entries of the A_i have independent N(0, inner_sigma^2) errors, those of the
    B_i N(0, outer_sigma^2). With P = diag(w) - w w' the gap is
    -sum_ij P_ij (B_i - B)(A_j - A) x, of mean zero and mean square

        ||P||_F^2 hidden outputs inner_sigma^2 outer_sigma^2 ||x||^2,

    ||P||_F^2 = (q - 1) / q^2 for equal weights. The second-order functional is this
    gap itself: the network is bilinear. Broadcasts over ||x||, `input_norm`, and the
    two sigmas. Raises ValueError for values outside (0, inf), counts below 1 or
    weights that do not sum to 1.
    """
    for name, count in (("hidden", hidden), ("outputs", outputs)):
        if count < 1:
            raise ValueError(f"{name} must be a count >= 1, got {count}")
    w = error_law(q, weights, None).weights
    spread = np.sum((np.diag(w) - np.outer(w, w)) ** 2)
    entry = (
        positive("inner_sigma", inner_sigma)
        * positive("outer_sigma", outer_sigma)
        * positive("input_norm", input_norm)
    )
    return np.asarray(spread * hidden * outputs * entry**2)


@dataclass(frozen=True)
class ReluGapMoments:
    """Mean and mean squares of the gap of B relu(h), in units of B sigma.

    gap = -mean(B) D - (B_1 - B_2)(relu(h_1) - relu(h_2)) / 4; `mloss` and
    `interaction` are the mean squares of the two parts, which are uncorrelated.
    To second order in the parameters the gap is -(B_1 - B_2)(h_1 - h_2) / 4 where
    the merged node is on, else 0; `second_order` is the mean square of that and
    `remainder` of the gap less that.
    """

    mean: Array
    mloss: Array
    interaction: Array
    second_order: Array
    remainder: Array

    @property
    def second_moment(self) -> Array:
        """E[gap^2]."""
        return self.mloss + self.interaction


def relu_gap_moments(
    k: ArrayLike, sigma: ArrayLike, *, readout: float, readout_sigma: ArrayLike
) -> ReluGapMoments:
    r"""The gap of one hidden ReLU node and its output weight, for two sources.

    h_i = x + e_i with x ~ U(-k, k) and e_i ~ N(0, sigma^2) (paper Section 4) and
    B_i ~ N(readout, readout_sigma^2), all independent; equal weights. With
    b = readout and t = readout_sigma,

        E[gap]         = -b E[D]
        mloss          = (b^2 + t^2 / 2) E[D^2]
        interaction    = t^2 / 4 E[Var(relu(h) | x)]
        second_order   = t^2 sigma^2 / 8
        remainder      = (b^2 + t^2) E[D^2],

    all exact: the remainder is -B_i D with i the source whose sign is not the
    mean's. Broadcasts over k, sigma and readout_sigma. Raises ValueError where one
    of them is not in (0, inf) or readout is not finite.
    """
    if not isfinite(readout):
        raise ValueError(f"readout must be finite, got {readout}")
    k, sigma = scales(k, sigma)
    t = positive("readout_sigma", readout_sigma)
    square = mloss_second_moment("relu", k, sigma)
    return ReluGapMoments(
        mean=-readout * expected_mloss("relu", k, sigma),
        mloss=(readout**2 + t**2 / 2) * square,
        interaction=t**2 / 4 * relu_variance(k, sigma),
        second_order=t**2 * sigma**2 / 8,
        remainder=(readout**2 + t**2) * square,
    )


def relu_variance(k: ArrayLike, sigma: ArrayLike) -> Array:
    r"""E[Var(relu(x + e) | x)] for x ~ U(-k, k) and e ~ N(0, sigma^2).

    sigma^2 / 2 less a term of order sigma^3 / k that the kink takes: with
    z = k / sigma, 1/2 + (z^3 Phi(z) Phi(-z) - (z^2 - 1) phi(z) erf(z / sqrt 2)
    - z phi(z)^2 - erf(z) / sqrt pi) / (3z), in units of sigma^2. For k << sigma it
    is (1 - 1/pi) / 2. Raises ValueError where k or sigma is not in (0, inf).
    """
    k, sigma = scales(k, sigma)
    z = widths(k, sigma**2)
    inside = (
        z**3 * ndtr(z) * ndtr(-z)
        - (z**2 - 1) * phi(z) * erf(z / sqrt(2))
        - z * phi(z) ** 2
        - erf(z) / sqrt(pi)
    )
    return sigma**2 * (1 / 2 + (sigma / k) * inside / 3)

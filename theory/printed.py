r"""The approximations as printed in Section 4 of the paper, kept beside the truth.

They are for two sources with equal weights and independent errors. What they
miss is the subject of `paper_checks`: every constant is too large.
"""

from math import pi, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.activations import GELU, Activation, LeakyReLU
from theory.analysis import resolve
from theory.law import scales

Array = NDArray[np.float64]

READINGS = ("k_outside_root", "k_inside_root")


def paper_approximation(
    activation: str | Activation,
    k: ArrayLike,
    sigma: ArrayLike,
    *,
    reading: str = "k_outside_root",
) -> Array:
    r"""The paper's E[D]: sigma^2 / sqrt(2 pi k) for ReLU, sigma^2 / (4k) for GELU.

    Leaky ReLU's is (1 - negative_slope) times ReLU's, as printed: negative for a
    slope above 1, which no expected M-Loss can be. The root can be read as
    covering 2 pi alone, sigma^2 / (sqrt(2 pi) k), the reading under which the
    units agree ("k_outside_root"), or 2 pi k as typeset ("k_inside_root"); GELU's
    formula has no root. Broadcasts over k and sigma. Raises ValueError for another
    reading, an activation the paper has no formula for, or k, sigma outside (0, inf).
    """
    if reading not in READINGS:
        raise ValueError(f"reading must be one of {READINGS}, got {reading!r}")
    f = resolve(activation)
    k, sigma = scales(k, sigma)
    if f == GELU:
        return (sigma / k) * sigma / 4
    if not isinstance(f, LeakyReLU):
        raise ValueError(
            f"the paper has no formula for activation {f.name!r}; "
            "it has relu, leaky_relu and gelu"
        )
    root = k * sqrt(2 * pi) if reading == "k_outside_root" else np.sqrt(2 * pi * k)
    return (1 - f.negative_slope) * (sigma / root) * sigma

"""The expected node M-Loss by two routes: the exact theory and simulation.

They share nothing but the definition, so that their agreement is evidence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from simulate import Estimate, estimate_mloss
from theory import Activation, LeakyReLU, expected_mloss

Array = NDArray[np.float64]

LEAKY_SLOPE = 0.25
RATIOS = (2.0, 10.0, 100.0, 1_000.0, 10_000.0)
# Rare crossings of the kink need more samples: the relative standard error for
# ReLU is 1.7 sqrt(k / (sigma n)).
SAMPLES = (4_000_000, 4_000_000, 4_000_000, 10_000_000, 20_000_000)
AGREE = 5.0  # standard errors; wrongly refused about once in 1.7 million cells
SHARPEST = 0.003  # of the value; the cells at small k / sigma resolve this much


def leaky_relu(x: Array) -> Array:
    """Evaluate Leaky ReLU for the simulation, apart from the theory's."""
    return np.where(x > 0, x, LEAKY_SLOPE * x)


# What each route calls an activation.
THEORY: dict[str, str | Activation] = {
    "relu": "relu",
    "leaky_relu": LeakyReLU(LEAKY_SLOPE),
    "gelu": "gelu",
}
SIMULATION: dict[str, str | Callable[[Array], Array]] = {
    "relu": "relu",
    "leaky_relu": leaky_relu,
    "gelu": "gelu",
}


@cache
def simulated(name: str, sigma: float, seed: int) -> tuple[Estimate, ...]:
    """Estimates of E[D] at k = sigma * RATIOS, each from its own stream."""
    return tuple(
        estimate_mloss(
            SIMULATION[name],
            ratio * sigma,
            sigma,
            n=n,
            rng=np.random.default_rng([seed, index, *name.encode()]),
        )
        for index, (ratio, n) in enumerate(zip(RATIOS, SAMPLES, strict=True))
    )


@dataclass(frozen=True)
class Agreement:
    """Exact values beside simulated ones at k = sigma * RATIOS; all arrays [cell]."""

    sigma: float
    exact: Array
    value: Array
    stderr: Array

    @property
    def relative_stderr(self) -> Array:
        """Standard error over the exact value."""
        return self.stderr / self.exact

    @property
    def distance(self) -> float:
        """The largest |simulated - exact| in standard errors."""
        return float((np.abs(self.value - self.exact) / self.stderr).max())

    def doubt(self, rival: Array) -> str:
        """Why this does not settle a formula whose values are `rival`, or nothing.

        The routes must agree within AGREE standard errors, one cell must resolve
        SHARPEST of the value, and every cell must be able to tell the exact value
        from the rival: their difference is at least twice AGREE standard errors.
        """
        if self.distance > AGREE:
            return (
                f"theory and simulation are {self.distance:.1f} standard errors apart "
                f"at sigma = {self.sigma:g}, so this command has no exact value"
            )
        if self.relative_stderr.min() > SHARPEST:
            return f"no simulated cell resolves {SHARPEST:.1%} of the value"
        if (2 * AGREE * self.stderr > np.abs(rival - self.exact)).any():
            return "a simulated cell cannot tell the exact value from the printed one"
        return ""


def agreement(name: str, sigma: float, *, seed: int) -> Agreement:
    """Compute one activation's expectation at k = sigma * RATIOS by both routes."""
    estimates = simulated(name, sigma, seed)
    return Agreement(
        sigma,
        exact=expected_mloss(THEORY[name], sigma * np.array(RATIOS), sigma),
        value=np.array([estimate.value for estimate in estimates]),
        stderr=np.array([estimate.stderr for estimate in estimates]),
    )

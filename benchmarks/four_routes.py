"""The expectation by four routes: exact, certified, from the definition, simulated."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from math import floor, log10

import numpy as np

from benchmarks.definition import DEFINITIONS, from_definition
from simulate import estimate_mloss
from theory import certified_mloss, expected_mloss

SEED = 20260101
RATIOS = (0.1, 1e8)  # the range of k / sigma, whose ends occur
SIGMAS = (1e-3, 1e2)
CERTIFIED_WIDTH, STATED = 1e-12, 1e-10
SAMPLES = 2**16


@dataclass(frozen=True)
class Point:
    """A parameter set; `number` seeds its simulation."""

    number: int
    activation: str
    k: float
    sigma: float

    @property
    def decade(self) -> int:
        """Of k / sigma, whose rounding must not take 1e8 to the decade below."""
        return floor(log10(self.k / self.sigma) + 1e-9)


@dataclass(frozen=True)
class Row:
    """The four routes to E[D] at a point, each with its own uncertainty."""

    point: Point
    exact: float
    lower: float
    upper: float
    definition: float
    definition_error: float
    simulated: float
    stderr: float

    @property
    def certified(self) -> float:
        """The middle of the enclosure."""
        return self.lower + (self.upper - self.lower) / 2

    @property
    def width(self) -> float:
        """Relative width of the enclosure."""
        return (self.upper - self.lower) / self.lower

    @property
    def inside(self) -> bool:
        """Whether the exact value, to its stated accuracy, is where it is proved."""
        return self.lower * (1 - STATED) <= self.exact <= self.upper * (1 + STATED)

    @property
    def z(self) -> float:
        """Simulated less exact, in standard errors."""
        return (self.simulated - self.exact) / self.stderr

    @classmethod
    def from_json(cls, stored: dict) -> "Row":
        """Undo `asdict`."""
        return cls(**stored | {"point": Point(**stored["point"])})


def points() -> Iterator[Point]:
    """Parameter sets without end: activations in turn, the extreme ratios first."""
    rng = np.random.default_rng(SEED)
    for number, name in enumerate(cycle(DEFINITIONS)):
        ratio, sigma = 10 ** rng.uniform(*np.log10([RATIOS, SIGMAS]).T)
        extreme = number // len(DEFINITIONS)
        if extreme < len(RATIOS):
            ratio = RATIOS[extreme]
        yield Point(number, name, float(ratio * sigma), float(sigma))


def measured(point: Point, *, digits: int = 50, order: int = 14) -> Row:
    """All four routes at one point."""
    at = point.activation, point.k, point.sigma
    proved = certified_mloss(*at, rtol=CERTIFIED_WIDTH)
    definition, error = from_definition(*at, digits=digits, order=order)
    rng = np.random.default_rng([SEED, point.number])
    simulated = estimate_mloss(*at, n=SAMPLES, rng=rng, method="qmc")
    return Row(
        point,
        exact=float(expected_mloss(*at)),
        lower=proved.lower,
        upper=proved.upper,
        definition=definition,
        definition_error=error,
        simulated=simulated.value,
        stderr=simulated.stderr,
    )

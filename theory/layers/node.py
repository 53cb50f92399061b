"""One node under one law, and what depends on its D and m alone.

Layers and normalised forms are expectations E[G(D, m)] of a G that vanishes with D,
or follow from them. `theory.layers.node_means` takes them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from theory.activations import Activation, Array, Elementwise, LeakyReLU
from theory.analysis import resolve
from theory.law import ErrorLaw, error_law, scales
from theory.layers.departures import pair_departures
from theory.layers.gap_points import GapPoints, gap_points, joined

_NARROWEST = 3e-6  # k in units of sigma; below, m is the merged error to 1e-11
_SMALLEST, _LARGEST = 1e-7, 1e8  # sigma, for activations with a scale of their own
_ACCURACY, _ROUGH = 1e-8, 1e-6  # of the quadrature; `Nodes.accuracy` tells which


@dataclass(frozen=True)
class Integrand:
    """G(D, m) [point] of D and m [point], zero where D is.

    In m it bends at `marks`; it peaks at `peaks`, as 1 / (|m - peak| + width) does.
    """

    function: Callable[[Array, Array], Array]
    marks: Sequence[float] = ()
    peaks: Sequence[float] = ()
    width: float = 1.0

    def mean(self, points: GapPoints) -> float:
        """E[G] over the points of a law."""
        return float(self.function(points.gap, points.merged) @ points.measure)


@dataclass(frozen=True)
class Node:
    """An activation and the law of what its sources see; `law` has no zero weights.

    k and sigma are in units of `unit`: of sigma for a homogeneous activation, which
    so knows one scale only, and 1 for the others.
    """

    f: Activation
    law: ErrorLaw
    k: float
    sigma: float
    unit: float

    @property
    def silent(self) -> bool:
        """Whether D is always zero."""
        straight = isinstance(self.f, LeakyReLU) and self.f.negative_slope == 1
        return straight or self.law.jensen_variance == 0

    def output(self, m: Array) -> Array:
        """|f(m)|, what the normalised forms divide by."""
        return np.abs(self.f(m / self.unit)) * self.unit

    def points(self, marks: Sequence[float] = ()) -> GapPoints:
        """The joint law of D and m for two sources; `marks` are where G bends in m."""
        if self.silent:
            return joined([])
        found = joined(
            gap_points(
                self.f,
                self.k,
                self.law.weights,
                pair_departures(self.f, self.k, self.sigma, self.law),
                marks=[mark / self.unit for mark in marks],
            )
        )
        return GapPoints(found.gap * self.unit, found.merged * self.unit, found.measure)


@dataclass(frozen=True)
class Nodes:
    """Nodes that share an activation and a law; k and sigma of one shape."""

    f: Activation
    law: ErrorLaw
    k: Array
    sigma: Array
    accuracy: float

    @property
    def many(self) -> bool:
        """Whether too many sources have a weight for a quadrature."""
        return self.law.q > 2 and self.law.jensen_variance > 0

    def __iter__(self) -> Iterator[Node]:
        for k, sigma in zip(self.k.flat, self.sigma.flat, strict=True):
            unit = float(sigma) if isinstance(self.f, LeakyReLU) else 1.0
            narrowest = max(float(k), _NARROWEST * float(sigma))
            yield Node(self.f, self.law, narrowest / unit, float(sigma) / unit, unit)

    def two_sources(self) -> "Nodes":
        """Return these nodes, or raise ValueError where they must be sampled."""
        if self.many:
            raise ValueError(
                f"no exact expectation is known here for {self.law.q} sources; "
                "sampled estimates and bounds are"
            )
        return self


def nodes_under(
    activation: str | Activation | Elementwise,
    k: ArrayLike,
    sigma: ArrayLike,
    *,
    q: int,
    weights: ArrayLike | None,
    cov: ArrayLike | None,
) -> Nodes:
    """Validate what every expectation takes, as `expected_mloss` does.

    Raises ValueError, too, for a sigma outside [1e-7, 1e8] where the activation has
    a scale of its own.
    """
    f = resolve(activation)
    law = error_law(q, weights, cov).active()
    k, sigma = scales(k, sigma)
    outside = (sigma < _SMALLEST) | (sigma > _LARGEST)
    if outside.any() and not isinstance(f, LeakyReLU):
        raise ValueError(
            f"sigma must lie in [{_SMALLEST:g}, {_LARGEST:g}] for activation "
            f"{f.name!r}, got {sigma[outside].flat[0]:g}"
        )
    turning_kinks = bool(f.kinks) and not f.bends_one_way()
    known = isinstance(activation, (str, Activation))
    rough = not known or (turning_kinks and len(set(law.weights.tolist())) > 1)
    return Nodes(f, law, k, sigma, _ROUGH if rough else _ACCURACY)

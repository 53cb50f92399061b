"""E[D] of any number of gated sources, by quasi-Monte Carlo over the gate alone.

Given the gate's errors a and its merged value m, the sum under the absolute value is
uniform plus Gaussian in the ups, and its mean is closed. The errors a are Gaussian
points of scrambled Sobol sequences; m is drawn half from its uniform law and half
about the bends of f, and weighted back. The spread over independent scramblings is
the error estimate. docs/gated.md, section 2.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

from theory.activations import Activation, Array
from theory.bends import bends
from theory.gated.gap import gate_moves
from theory.gated.law import GatedLaw
from theory.gated.means import mean_absolute
from theory.variation import total_variation

_SCRAMBLINGS = 16
_STANDARD_ERRORS = 3.0
_FIRST, _MOST = 2**10, 2**18  # points of each scrambling
_BLOCK = 2**18  # numbers in memory at a time


def gated_sampled(
    f: Activation, law: GatedLaw, *, rtol: float, seed: int
) -> tuple[float, float]:
    """E[D] and its error for sources of positive weight, from as many points as needed.

    The error is three standard errors over the scramblings, plus 3 / N of the value
    for what N points never met. Raises ArithmeticError where 2^18 points a scrambling
    leave it above rtol of the value.
    """
    sampler = _Sampler(f, law)
    seeds = np.random.SeedSequence(seed).spawn(_SCRAMBLINGS)
    sequences = [
        qmc.Sobol(sampler.root.shape[1] + 1, rng=np.random.default_rng(s))
        for s in seeds
    ]
    totals = np.zeros(_SCRAMBLINGS)
    points, wanted = 0, _FIRST
    while wanted <= _MOST:
        totals += [sampler.total(s, wanted - points) for s in sequences]
        points, wanted = wanted, 2 * wanted
        value = float(totals.mean()) / points
        stderr = float(totals.std(ddof=1)) / points / np.sqrt(_SCRAMBLINGS)
        error = _STANDARD_ERRORS * stderr + 3 / (_SCRAMBLINGS * points) * value
        if error <= rtol * value:
            return value, error
    raise ArithmeticError(
        f"rtol = {rtol:g} was not reached for {f.name!r} and {law.errors.q} sources "
        f"at k = {law.k:g}, sigma = {law.sigma:g}, k_up = {law.k_up:g}, sigma_up = "
        f"{law.sigma_up:g}: {points} points in each of {_SCRAMBLINGS} scramblings "
        f"give {value:.9g} +- {error:.2g}"
    )


@dataclass(frozen=True)
class _Sampler:
    f: Activation
    law: GatedLaw

    @cached_property
    def root(self) -> Array:
        """B [source, dimension] with B B' = C, what moves the departures most first."""
        errors = self.law.errors
        values, vectors = np.linalg.eigh(errors.cov)
        kept = values > 8 * errors.q * np.finfo(float).eps * values[-1]
        root = vectors[:, kept] * np.sqrt(values[kept])
        departure = root - errors.weights @ root
        weighted = np.sqrt(errors.weights)[:, None] * departure
        return np.asarray(root @ np.linalg.svd(weighted)[2].T)

    @cached_property
    def places(self) -> tuple[Array, Array, Array]:
        """Centre, width and share [bend] of where m is drawn beside its own law."""
        if total_variation(self.f) == 0:
            return np.empty(0), np.empty(0), np.empty(0)
        found = bends(self.f)
        return found.centre, found.width, found.share / 2

    def total(self, sequence: qmc.Sobol, count: int) -> float:
        """The sum of E[D | a, m] over the density of m, at the next points."""
        block = max(_BLOCK // (self.law.errors.q + 1), 1)
        total = 0.0
        for start in range(0, count, block):
            uniform = sequence.random(min(block, count - start))
            # An open interval: a Gaussian point must be finite.
            uniform = 0.5 + (1 - 1e-10) * (uniform - 0.5)
            errors = self.law.sigma * ndtri(uniform[:, 1:]) @ self.root.T
            merged = errors @ self.law.errors.weights
            departure = errors - merged[:, None]
            m, density = self._place(uniform[:, 0], merged, np.ptp(departure, axis=1))
            mean = self._given(m, merged, departure)
            total += float((mean / (2 * self.law.k * density)).sum())
        return total

    def _place(
        self, position: Array, merged: Array, apart: Array
    ) -> tuple[Array, Array]:
        """The merged gate for each position in (0, 1), and the density it has there.

        A mixture of m's own law, uniform about the merged error, and Cauchy densities
        about each bend, as wide as the bend and the sources' distance, cut to that
        range.
        """
        k = self.law.k
        centre, width, share = (column[:, None] for column in self.places)
        width = width + apart
        low, high = (merged - k - centre) / width, (merged + k - centre) / width
        # arctan(high) - arctan(low), where neither may be rounded away.
        span = np.arctan2(2 * k / width, 1 + low * high)
        edges = np.cumsum(np.append(1 - share.sum(), share))
        chosen = np.clip(np.searchsorted(edges, position), 0, len(share))
        m = merged + k * (2 * position / edges[0] - 1)
        for bend in range(len(share)):
            here = chosen == bend + 1
            within = (position[here] - edges[bend]) / share[bend]
            angle = np.arctan(low[bend, here]) + within * span[bend, here]
            m[here] = centre[bend] + width[bend, here] * np.tan(angle)
        m = np.clip(m, merged - k, merged + k)
        bell = span * width * (1 + ((m - centre) / width) ** 2)
        return m, edges[0] / (2 * k) + (share / bell).sum(axis=0)

    def _given(self, m: Array, merged: Array, departure: Array) -> Array:
        """E[D | a, m]: the closed mean over the ups, [point]."""
        law, weights = self.law, self.law.errors.weights
        rises, gaps = gate_moves(self.f, m[:, None], departure, weights)
        moved, gap = weights * rises[:, 0], gaps[:, 0]
        centre = gap * merged + (moved * departure).sum(axis=1)
        deviation = np.sqrt(((moved @ self.root) ** 2).sum(axis=1))
        return mean_absolute(
            law.follows * centre,
            np.abs(gap) * law.k_up,
            law.sigma_up * law.freedom * deviation,
        )

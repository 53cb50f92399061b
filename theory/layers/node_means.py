r"""E[G(D, m)] of a node: by quadrature for two sources, sampled for more.

Sampled, the errors are Gaussian points of a scrambled Sobol sequence, and m is drawn
about the bends of f, as in `theory.many`, and weighted back. Where G peaks in m, at a
zero of f, a part of it that holds the peak is drawn apart, evenly in the logarithm of
the distance. docs/layer.md, section 1.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

from theory.activations import Array
from theory.bends import bends, place
from theory.layers.node import Integrand, Node, Nodes
from theory.many import Evaluation, departure_gap

_SCRAMBLINGS = 16
_STANDARD_ERRORS = 3.0
_FIRST, _MOST = 2**10, 2**17  # points of each scrambling
_BLOCK = 2**18  # numbers in memory at a time
# A gap grows with the errors, and the last cell of a narrow tail would decide its
# square: the coordinates that move it most are drawn wider and weighted back.
_WIDER, _WIDENED = 1.4, 6


def node_means(
    nodes: Nodes, integrands: Iterable[Integrand], *, rtol: float, seed: int
) -> Evaluation:
    """E[G] of each node's own G, in the shape of the nodes, and its error.

    The quadrature's stated accuracy for two sources. For more three standard errors
    of sixteen scramblings, whose points are doubled until that is rtol of the value.
    Raises ValueError for rtol outside (0, 1), and ArithmeticError, saying what was
    reached, where 2^17 points a scrambling do not suffice.
    """
    if not 0 < rtol < 1:
        raise ValueError(f"rtol must lie between 0 and 1, got {rtol}")
    value, error = np.empty(nodes.k.size), np.empty(nodes.k.size)
    for i, (node, integrand) in enumerate(zip(nodes, integrands, strict=True)):
        if nodes.many and not node.silent:
            sampler = _Sampler(node, integrand)
            value[i], error[i] = sampler.to_tolerance(rtol, seed)
        else:
            value[i] = integrand.mean(node.points(integrand.marks))
            error[i] = nodes.accuracy * value[i]
    return Evaluation(value.reshape(nodes.k.shape), error.reshape(nodes.k.shape))


@dataclass(frozen=True)
class _Sampler:
    node: Node
    integrand: Integrand

    def to_tolerance(self, rtol: float, seed: int) -> tuple[float, float]:
        """E[G] and its error, from as many points as it takes."""
        for means in self._means(seed):
            value = float(means.mean())
            error = _STANDARD_ERRORS * float(means.std(ddof=1)) / np.sqrt(_SCRAMBLINGS)
            if error <= rtol * value:
                return value, error
        node, unit = self.node, self.node.unit
        raise ArithmeticError(
            f"rtol = {rtol:g} was not reached for {node.f.name!r}, {node.law.q} "
            f"sources, k = {node.k * unit:g} and sigma = {node.sigma * unit:g}: "
            f"{_MOST} points in each of {_SCRAMBLINGS} scramblings give "
            f"{value:.9g} +- {error:.2g}"
        )

    def _means(self, seed: int) -> Iterator[Array]:
        """The mean of each scrambling's points, again at every doubling of them."""
        root = self._root()
        seeds = np.random.SeedSequence(seed).spawn(_SCRAMBLINGS)
        sequences = [
            qmc.Sobol(root.shape[1] + 1, rng=np.random.default_rng(s)) for s in seeds
        ]
        totals = np.zeros(_SCRAMBLINGS)
        points, wanted = 0, _FIRST
        while wanted <= _MOST:
            for i, sequence in enumerate(sequences):
                totals[i] += self._total(sequence, wanted - points, root)
            points, wanted = wanted, 2 * wanted
            yield totals / points

    def _root(self) -> Array:
        """B [source, dimension], B B' = cov e; what moves departures most is first."""
        law = self.node.law
        values, vectors = np.linalg.eigh(law.cov)
        kept = values > 8 * law.q * np.finfo(float).eps * values[-1]
        root = vectors[:, kept] * np.sqrt(values[kept])
        departure = np.sqrt(law.weights)[:, None] * (root - law.weights @ root)
        return np.asarray(self.node.sigma * root @ np.linalg.svd(departure)[2].T)

    def _total(self, sequence: qmc.Sobol, count: int, root: Array) -> float:
        """The sum of the integrand over the next points of a sequence."""
        wide = np.where(np.arange(root.shape[1]) < _WIDENED, _WIDER, 1.0)
        block = max(_BLOCK // (root.shape[0] + 1), 1)
        total = 0.0
        for start in range(0, count, block):
            uniform = sequence.random(min(block, count - start))
            # An open interval: a Gaussian point must be finite.
            uniform = 0.5 + (1 - 1e-10) * (uniform - 0.5)
            z = wide * ndtri(uniform[:, 1:])
            weight = np.prod(wide * np.exp((wide**-2 - 1) * z**2 / 2), axis=1)
            total += float(weight @ self._given(uniform[:, 0], z @ root.T))
        return total

    def _given(self, position: Array, errors: Array) -> Array:
        """What each point adds to E[G]: over the bends, and about each peak."""
        node = self.node
        merged = errors @ node.law.weights
        departure = errors - merged[:, None]
        m, density = place(
            bends(node.f), position, merged=merged, departure=departure, k=node.k
        )
        total = self._part(m, density, departure, None)
        for peak in self.integrand.peaks:
            m, density = self._about(peak / node.unit, position, merged, departure)
            total += self._part(m, density, departure, peak)
        return total

    def _about(
        self, peak: float, position: Array, merged: Array, departure: Array
    ) -> tuple[Array, Array]:
        """A value of m for each position, of density ~ 1 / (|m - peak| + width)."""
        node, width = self.node, self.integrand.width / self.node.unit
        low, high = node.f.reach
        first = np.maximum(low - departure.max(axis=1), merged - node.k) - peak
        last = np.minimum(high - departure.min(axis=1), merged + node.k) - peak
        ends = [np.sign(t) * np.log1p(np.abs(t) / width) for t in (first, last)]
        span = np.maximum(ends[1] - ends[0], 0)
        at = ends[0] + position * span
        away = width * np.expm1(np.abs(at))
        density = np.divide(
            1, span * (away + width), out=np.zeros_like(span), where=span > 0
        )
        return peak + np.sign(at) * away, density

    def _part(
        self, m: Array, density: Array, departure: Array, peak: float | None
    ) -> Array:
        """G over the density of m, as much of it as belongs to a peak or to none."""
        node = self.node
        gap = np.abs(departure_gap(node.f, m, departure, node.law.weights))
        value = self.integrand.function(gap * node.unit, m * node.unit)
        value = value * self._share(m * node.unit, peak)
        none = np.zeros_like(value)
        return np.divide(value, 2 * node.k * density, out=none, where=density > 0)

    def _share(self, m: Array, peak: float | None) -> Array:
        """A partition of unity in m: near a peak its share is 1, far from all 0."""
        wide = self.node.sigma * self.node.unit + self.integrand.width
        near = [wide / (np.abs(m - c) + 1e-9 * wide) for c in self.integrand.peaks]
        whole = 1 + sum(near, np.zeros_like(m))
        chosen = [
            a for c, a in zip(self.integrand.peaks, near, strict=True) if c == peak
        ]
        return (chosen[0] if chosen else np.ones_like(m)) / whole

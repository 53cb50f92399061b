r"""E[D] of any number of sources, sampled where it is not known exactly.

Let d_i = e_i - sum_j w_j e_j be a source's departure from the merged error, so that
D = |S(m, d)| for S = sum_i w_i f(m + d_i) - f(m). Then E|S| = E[S] + 2 E[S^-], and
E[S] is known (`theory.smooth`): only the part of the smaller sign is sampled. The
errors are Gaussian points of a scrambled Sobol sequence. Given them, m is uniform on
an interval of width 2k; it is sampled from a density that follows the bends of f and
weighted back, as a plain point rarely meets a bend when k is large. The spread over
independent scramblings is the error estimate. docs/many.md, section 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri, roots_legendre
from scipy.stats import qmc

from theory.activations import Activation, Array, Elementwise, LeakyReLU
from theory.analysis import resolve
from theory.bends import Bends, bends, place
from theory.expectation import expected_mloss
from theory.law import ErrorLaw, error_law, scales
from theory.smooth import signed_expectation

_SCRAMBLINGS = 16
_STANDARD_ERRORS = 3.0
_FIRST, _MOST = 2**12, 2**18  # points of each scrambling
_BLOCK = 2**20  # numbers in memory at a time
_NODES, _WEIGHTS = roots_legendre(4)
_SMALL = 1e-2  # of the scale of f: below it S is a mean of f'' and not a difference
# Relative accuracy of `expected_mloss` and of E[S], as their docstrings state it.
_CLOSED, _QUADRATURE, _FITTED = 1e-12, 1e-10, 1e-8


@dataclass(frozen=True)
class Evaluation:
    """Values and a bound on their errors that holds in about 99 cases of 100."""

    value: Array
    error: Array


def estimated_mloss(
    activation: str | Activation | Elementwise,
    k: ArrayLike,
    sigma: ArrayLike,
    *,
    q: int = 2,
    weights: ArrayLike | None = None,
    cov: ArrayLike | None = None,
    rtol: float = 1e-4,
    seed: int = 0,
) -> Evaluation:
    """Expected node M-Loss for any activation and any q, with its error.

    Arguments and units as for `expected_mloss`, whose value is returned, with its
    stated accuracy, wherever it has one. Elsewhere `error` is three standard errors
    of sixteen independent scramblings of a Sobol sequence, plus 3 / N of the value for
    what N points never met; N doubles until error <= rtol * value. Each point
    (k, sigma) starts again from `seed`.

    Raises ValueError as `expected_mloss` does and for rtol outside (0, 1), and
    ArithmeticError, saying what was reached, where 2^18 points a scrambling do not
    suffice.
    """
    if not 0 < rtol < 1:
        raise ValueError(f"rtol must lie between 0 and 1, got {rtol}")
    f = resolve(activation)
    law = error_law(q, weights, cov).active()
    k, sigma = scales(k, sigma)
    known = isinstance(activation, (str, Activation))
    accuracy = _QUADRATURE if known else _FITTED
    if law.q <= 2 or law.jensen_variance == 0 or f.bends_one_way():
        value = expected_mloss(f, k, sigma, q=q, weights=weights, cov=cov)
        accuracy = _CLOSED if isinstance(f, LeakyReLU) else accuracy
        return Evaluation(value, accuracy * value)
    found = sampled_mloss(f, k, sigma, law, rtol=rtol, seed=seed)
    return Evaluation(found.value, found.error + accuracy * found.value)


def sampled_mloss(
    f: Activation, k: Array, sigma: Array, law: ErrorLaw, *, rtol: float, seed: int
) -> Evaluation:
    """E[D] by sampling; k and sigma of one shape, sources of positive weight."""
    signed = signed_expectation(f, k, sigma, law)
    value, error = np.empty(k.shape), np.empty(k.shape)
    found = bends(f)
    for at in np.ndindex(k.shape):
        scale = float(k[at]), float(sigma[at])
        sampler = _Sampler(f, law, *scale, float(signed[at]), found)
        value[at], error[at] = sampler.to_tolerance(rtol, seed)
    return Evaluation(value, error)


@dataclass(frozen=True)
class _Sampler:
    f: Activation
    law: ErrorLaw
    k: float
    sigma: float
    signed: float
    bends: Bends

    def to_tolerance(self, rtol: float, seed: int) -> tuple[float, float]:
        """E[D] and its error, from as many points as it takes."""
        for points, means in self._means(seed):
            unseen = 3 / (_SCRAMBLINGS * points)
            values = abs(self.signed) + 2 * means
            value = float(values.mean())
            stderr = float(values.std(ddof=1)) / np.sqrt(_SCRAMBLINGS)
            error = _STANDARD_ERRORS * stderr + unseen * value
            if error <= rtol * value:
                return value, error
        raise ArithmeticError(
            f"rtol = {rtol:g} was not reached for {self.f.name!r}, {self.law.q} "
            f"sources, k = {self.k:g} and sigma = {self.sigma:g}: {points} points in "
            f"each of {_SCRAMBLINGS} scramblings give {value:.9g} +- {error:.2g}"
        )

    def _means(self, seed: int) -> Iterator[tuple[int, Array]]:
        """The mean of each scrambling's points, again at every doubling of them."""
        factor = self._factor()
        seeds = np.random.SeedSequence(seed).spawn(_SCRAMBLINGS)
        sequences = [
            qmc.Sobol(factor.shape[1] + 1, rng=np.random.default_rng(s)) for s in seeds
        ]
        totals = np.zeros(_SCRAMBLINGS)
        points, wanted = 0, _FIRST
        while wanted <= _MOST:
            for i, sequence in enumerate(sequences):
                totals[i] += self._total(sequence, wanted - points, factor)
            points, wanted = wanted, 2 * wanted
            yield points, totals / points

    def _factor(self) -> Array:
        """B [source, dimension] with B B' the covariance of the errors.

        As few dimensions as its rank, those that move the departures most first.
        """
        values, vectors = np.linalg.eigh(self.law.cov)
        kept = values > 8 * self.law.q * np.finfo(float).eps * values[-1]
        root = vectors[:, kept] * np.sqrt(values[kept])
        departure = root - self.law.weights @ root
        weighted = np.sqrt(self.law.weights)[:, None] * departure
        turned = np.linalg.svd(weighted)[2]
        return np.asarray(self.sigma * root @ turned.T)

    def _total(self, sequence: qmc.Sobol, count: int, factor: Array) -> float:
        """The sum of the integrand over the next points of a sequence."""
        block = max(_BLOCK // (factor.shape[0] + 1), 1)
        total = 0.0
        for start in range(0, count, block):
            uniform = sequence.random(min(block, count - start))
            # An open interval: a Gaussian point must be finite.
            uniform = 0.5 + (1 - 1e-10) * (uniform - 0.5)
            errors = ndtri(uniform[:, 1:]) @ factor.T
            total += float(self._minor_part(uniform[:, 0], errors).sum())
        return total

    def _minor_part(self, position: Array, errors: Array) -> Array:
        """S^-, or S^+ where E[S] < 0, over the density of m; errors [point, q]."""
        merged = errors @ self.law.weights
        departure = errors - merged[:, None]
        m, density = place(
            self.bends, position, merged=merged, departure=departure, k=self.k
        )
        gap = departure_gap(self.f, m, departure, self.law.weights)
        minor = np.maximum(-gap if self.signed >= 0 else gap, 0)
        none = np.zeros_like(minor)
        return np.divide(minor, 2 * self.k * density, out=none, where=density > 0)


def departure_gap(f: Activation, m: Array, departure: Array, weights: Array) -> Array:
    """S = sum_i w_i f(m + d_i) - f(m), [point], for m [point] and d [point, source].

    The weighted mean of the departures d is zero. Where all are small S is taken as
    sum_i w_i (f(m + d_i) - f(m) - d_i f'(m)), whose terms do not cancel.
    """
    low, high = f.reach
    scale = max((high - low) / 40, 0.1)
    small = np.abs(departure).max(axis=1) < _SMALL * scale
    result = np.empty_like(m)
    wide_m, wide_d = m[~small], departure[~small]
    result[~small] = f(wide_m[:, None] + wide_d) @ weights - f(wide_m)
    result[small] = _remainder(f, m[small][:, None], departure[small]) @ weights
    return result


def _remainder(f: Activation, m: Array, d: Array) -> Array:
    """f(m + d) - f(m) - d f'(m), as a mean of f'' and of the jumps of f' on the way.

    d^2 int_0^1 (1 - s) f''(m + s d) ds, split at the kinks, and jump |m + d - kink|
    for each kink that lies between m and m + d.
    """
    total = np.zeros_like(d)
    passed = [np.zeros_like(d), np.ones_like(d)]
    for kink, jump in zip(f.kinks, f.jumps, strict=True):
        at = np.divide(kink - m, d, out=np.ones_like(d), where=d != 0)
        # A kink at m itself is met by the sources on one side.
        met = (at < 1) & np.where(d > 0, at > 0, at >= 0)
        total += jump * np.where(met, np.abs(m + d - kink), 0)
        passed.append(np.clip(at, 0, 1))
    edges = np.sort(passed, axis=0)
    for start, stop in pairwise(edges):
        for node, weight in zip(_NODES, _WEIGHTS, strict=True):
            s = start + (stop - start) * (1 + node) / 2
            share = weight * (stop - start) / 2 * (1 - s)
            total += d**2 * share * f.curvature(m + s * d)
    return total

r"""E[D] of two gated sources, by quadrature.

With the differences d = a_1 - a_2 and e = b_1 - b_2, and m and m_up the merged gate
and up,

    f(m) m_up - sum_i w_i f(g_i) u_i = -(S(m, d) m_up + w_1 w_2 R(m, d) e),
    S = w_1 f(m + w_2 d) + w_2 f(m - w_1 d) - f(m),
    R = f(m + w_2 d) - f(m - w_1 d).

Given m and d, m_up is uniform plus Gaussian and e is Gaussian, so the mean of the
absolute value is closed. What remains is an integral over m and d, and, where the
ends of the gate's range are near and the errors of gate and up go together, one over
the merged gate's error. docs/gated.md, section 2.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from theory.activations import Activation, Array
from theory.gated.gap import gate_moves
from theory.gated.law import GatedLaw
from theory.gated.means import mean_absolute
from theory.gated.rows import Rows, integrate_rows
from theory.panels import panel_rule
from theory.signed import phi

_CUT = 8.5  # standard deviations; what lies beyond has 1e-15 of the second moment
_BENDS = np.array([-_CUT, -4.0, -1.5, 0.0, 1.5, 4.0, _CUT])
_BELL = np.array([-_CUT, -4.5, -1.5, 1.5, 4.5, _CUT])
_SHARP = 1.5  # deviations
_NARROW = 1e-3  # deviations: the next term of the chance is 1e-14
_STEPS = np.array([-8.0, -3.0, -1.0, 0.0, 1.0, 3.0, 8.0])  # across a smoothed kink
_MARKS = 9  # over the reach of f
_INNER, _OUTER = 1e-10, 1e-9  # tolerances; that of d stays above the noise of m
_BLOCK = 2**14


def gated_pair(f: Activation, law: GatedLaw, *, rtol: float) -> tuple[float, float]:
    """E[D] for two sources of positive weight, and a bound on its error.

    Raises ArithmeticError where the error stays above rtol of the value.
    """
    value, error = _Pair(f, law).mean()
    # The rule moves its nodes by 1e-13; kinks and the gate's range lie where they do
    # to a rounding.
    furthest = max(map(abs, f.kinks), default=0.0)
    resolution = furthest / law.sigma + law.sigma / law.k
    error += (1e-13 + np.finfo(float).eps * resolution) * value
    if error > rtol * value:
        raise ArithmeticError(
            f"rtol = {rtol:g} was not reached for {f.name!r} at k = {law.k:g}, sigma = "
            f"{law.sigma:g}, k_up = {law.k_up:g}, sigma_up = {law.sigma_up:g}: "
            f"{value:.9g} +- {error:.2g}"
        )
    return value, error


@dataclass(frozen=True)
class _Given:
    """The sum S m_up + w_1 w_2 R e given m and d, as slope n_up + centre + own z.

    n_up is u0 plus the part of the merged up's error that e leaves open.
    """

    slope: Array
    centre: Array
    own: Array


class _Pair:
    """The quadrature at one point."""

    def __init__(self, f: Activation, law: GatedLaw):
        self.f, self.law = f, law
        self.weights = law.errors.weights
        self.pair = law.errors.pair()
        self.deviation = law.sigma * self.pair.deviation
        self.spread = law.sigma * self.pair.spread
        self.up_spread = law.sigma_up * self.pair.spread

    def mean(self) -> tuple[float, float]:
        # For equal weights D does not see the sign of d.
        symmetric = self.weights[0] == self.weights[1] and self.pair.drift == 0
        sides = [self._side(sign) for sign in ((1.0,) if symmetric else (1.0, -1.0))]
        value, error = np.sum(sides, axis=0)
        share = (2 if symmetric else 1) / (2 * self.law.k)
        return float(value * share), float(error * share)

    def _side(self, sign: float) -> tuple[float, float]:
        """The integral over the d of one sign, and its error."""
        worst = [0.0]

        def density(_: Rows, size: Array) -> Array:
            found, off = self._over_gate(sign * size.ravel())
            worst.append(float((off / np.maximum(found, 1e-300)).max()))
            bell = phi(size / self.deviation) / self.deviation
            return np.asarray(found.reshape(size.shape) * bell)

        edges = self._sizes(sign)[None]
        (value,), (error,) = integrate_rows(density, edges, tolerance=_OUTER)
        return value, error + max(worst) * value

    def _sizes(self, sign: float) -> Array:
        """Panel edges in |d|: geometric from the finer scale, and where kinks meet.

        Kinks meet each other, as two of the three arguments m, m + w_2 d, m - w_1 d
        see them, and the ends of the gate's range, where m follows d.
        """
        low, high = self.f.reach
        top = _CUT * self.deviation
        bottom = min(self.deviation, max((high - low) / 40, 0.1)) / 2
        panels = int(np.ceil(np.log(top / bottom) / np.log(4)))
        w1, w2 = self.weights
        kinks, drift = np.array(self.f.kinks), self.pair.drift
        apart = np.abs(kinks[:, None] - kinks).ravel()
        ends = (kinks[:, None] - [-self.law.k, self.law.k]).ravel()
        meet = [apart / weight for weight in (1.0, w1, w2)]
        follows = [slope for slope in (drift, drift + w2, drift - w1) if slope != 0]
        meet += [sign * ends / slope for slope in follows]
        edges = [[0.0], np.geomspace(bottom, top, panels + 1), *meet]
        return np.asarray(np.clip(np.concatenate(edges), 0, top))

    def _over_gate(self, d: Array) -> tuple[Array, Array]:
        """The integral over m of the mean of D given m and d, and its error; [d]."""
        w1, w2 = self.weights
        low, high = self.f.reach
        arms = np.stack([0 * d, w2 * d, -w1 * d], axis=1)
        ends = self.pair.drift * d[:, None] + np.array([-self.law.k, self.law.k])
        first, last = ends[:, :1] - _CUT * self.spread, ends[:, 1:] + _CUT * self.spread
        marks = [*np.linspace(low, high, _MARKS), *self.f.kinks]
        seen = (np.array(marks)[:, None] - arms[:, None, :]).reshape(len(d), -1)
        bends = (ends[:, :, None] + self.spread * _BENDS).reshape(len(d), -1)
        edges = np.clip(np.concatenate([seen, bends], axis=1), first, last)

        def mean(row: Rows, m: Array) -> Array:
            return self._mean(d[row], m)

        return integrate_rows(mean, edges, tolerance=_INNER)

    def _mean(self, d: Array, m: Array) -> Array:
        """E[D | m, d] times P(the gate is in range | m, d), for m [row, node]."""
        result = np.empty_like(m)
        for start in range(0, len(m), _BLOCK):
            block = slice(start, start + _BLOCK)
            result[block] = self._block(d[block], m[block])
        return result

    def _block(self, d: Array, m: Array) -> Array:
        w1, w2 = self.weights
        law, pair = self.law, self.pair
        departure = d[:, None] * np.array([w2, -w1])
        rises, gap = gate_moves(self.f, m, departure, self.weights)
        difference = rises[..., 0] - rises[..., 1]
        # m_up is u0 + drift e + up_spread z, and e has mean follows d.
        by_difference = gap * pair.drift + w1 * w2 * difference
        given = _Given(
            slope=gap,
            centre=by_difference * law.follows * d[:, None],
            own=by_difference * law.sigma_up * pair.deviation * law.freedom,
        )
        return self._in_range(given, m - pair.drift * d[:, None])

    def _in_range(self, given: _Given, merged: Array) -> Array:
        """Average over the merged gate's own error, held to the range of the gate."""
        k, spread = self.law.k, self.spread
        if spread == 0:
            return self._free(given) * (np.abs(merged) < k)
        lowest, highest = (merged - k) / spread, (merged + k) / spread
        result = self._free(given) * _chance(lowest, highest, 2 * k / spread)
        tied = (self.law.correlation != 0) & (given.slope != 0)
        tied &= (lowest > -_CUT) | (highest < _CUT)
        if tied.any():
            some = _Given(given.slope[tied], given.centre[tied], given.own[tied])
            result[tied] = self._tied(some, lowest[tied], highest[tied])
        return result

    def _free(self, given: _Given) -> Array:
        """The mean where the merged gate's error is independent of m or unseen."""
        deviation = np.hypot(given.own, given.slope * self.up_spread)
        return mean_absolute(
            given.centre, np.abs(given.slope) * self.law.k_up, deviation
        )

    def _tied(self, given: _Given, lowest: Array, highest: Array) -> Array:
        """The mean over the merged gate's error z, between lowest and highest.

        The merged up follows by `correlation` z: a kink where the sum passes zero at
        an end of the up's range, smoothed by what is left open.
        """
        law = self.law
        lean = given.slope * self.up_spread * law.correlation
        half_width = np.abs(given.slope) * law.k_up
        deviation = np.hypot(given.own, given.slope * self.up_spread * law.freedom)
        edges = np.concatenate(
            [
                np.broadcast_to(_BELL, (len(lean), len(_BELL))),
                *self._turns(given.centre, half_width, lean, deviation),
            ],
            axis=1,
        )
        ends = (np.clip(end, -_CUT, _CUT)[:, None] for end in (lowest, highest))
        edges = np.sort(np.clip(edges, *ends), axis=1)
        row, panel = np.nonzero(np.diff(edges) > 0)
        pairs = np.stack([edges[row, panel], edges[row, panel + 1]], axis=1)
        z, measure = panel_rule(pairs)
        mean = mean_absolute(
            given.centre[row, None] + lean[row, None] * z,
            np.broadcast_to(half_width[row, None], z.shape),
            np.broadcast_to(deviation[row, None], z.shape),
        )
        integral = (mean * phi(z) * measure).sum(axis=1)
        return np.bincount(row, integral, len(lean)).astype(np.float64)

    @staticmethod
    def _turns(
        centre: Array, half_width: Array, lean: Array, deviation: Array
    ) -> list[Array]:
        """Panel edges about each turn in z that is sharper than a Gaussian."""
        width = (deviation / np.abs(lean))[:, None]
        turns = [(end - centre) / lean for end in (-half_width, half_width)]
        steps = [turn[:, None] + width * _STEPS for turn in turns]
        return [np.where(width < _SHARP, step, _CUT) for step in steps]


def _chance(lowest: Array, highest: Array, width: float) -> Array:
    """P(lowest < z < highest), which a difference would lose on a narrow range."""
    if width > _NARROW:
        return np.asarray(ndtr(highest) - ndtr(lowest))
    middle = (lowest + highest) / 2
    return phi(middle) * width * (1 + (middle**2 - 1) * width**2 / 24)

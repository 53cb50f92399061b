r"""E[D] of two sources for any activation, by quadrature over the definition.

With u = h_1 - h_2 and m = w_1 h_1 + w_2 h_2, D = |S(m, u)| for the second difference
S = w_1 f(m + w_2 u) + w_2 f(m - w_1 u) - f(m). Given u, m is x plus a Gaussian, so
E[D | u] is a one-dimensional integral of |S| against a smooth density over 2k. It is
taken in panels that end where f, S or that density bend: the kinks and the curved
part of f seen from m, m + w_2 u and m - w_1 u, the roots of S, and the ends of the
range of x.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import elementwise
from scipy.special import ndtr, roots_legendre

from theory.activations import Activation, Array
from theory.law import ErrorLaw
from theory.panels import panel_rule
from theory.signed import phi

_CUT = 8.5  # standard deviations; what lies beyond has 1e-15 of the second moment
_BENDS = np.array([-8.5, -4.0, -1.5, 0.0, 1.5, 4.0, 8.5])
# Where in a panel S is looked at for a change of sign: its ends are often zeros.
_LOOK = np.array([0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
_PIECES = 12  # of the reach of f, as it is seen from each of the three arguments
_HAT_NODES, _HAT_WEIGHTS = roots_legendre(6)
_LOOSE = 0.49  # below it the mean given u bends where an end of the range passes f's
_SMALL = 0.1  # of the scale of f: below it S is a mean of f'' and not a difference
_LOST = 1e4 * np.finfo(float).eps  # of f: a difference below it has under 4 digits


def expected_pair(f: Activation, k: Array, sigma: Array, law: ErrorLaw) -> Array:
    """E[D] for two sources of positive weight; k and sigma of one shape."""
    values = [
        _Pair(f, law, float(a), float(b)).mean()
        for a, b in zip(k.reshape(-1), sigma.reshape(-1), strict=True)
    ]
    return np.array(values).reshape(k.shape)


@dataclass(frozen=True)
class _Pair:
    f: Activation
    law: ErrorLaw
    k: float
    sigma: float

    def mean(self) -> float:
        """E[D]."""
        pair = self.law.pair()
        drift = pair.drift
        deviation, spread = self.sigma * pair.deviation, self.sigma * pair.spread
        # For equal weights S does not see the sign of u.
        symmetric = self.law.weights[0] == self.law.weights[1] and drift == 0
        total = 0.0
        for sign in (1.0,) if symmetric else (1.0, -1.0):
            edges = self._sizes(deviation)
            splits = self._kinks_met(edges, sign)
            if pair.looseness < _LOOSE:
                splits += self._ends_met(edges, sign, drift)
            inside = [split for split in splits if 0 < split < edges.max()]
            size, measure = panel_rule(np.append(edges, inside))
            measure = measure * phi(size / deviation) / deviation
            keep = measure > 0
            given = self._given(sign * size[keep], drift, spread)
            total += float(given @ measure[keep])
        return (2 if symmetric else 1) * total / (2 * self.k)

    def _scale(self) -> float:
        low, high = self.f.reach
        return max((high - low) / 40, 0.1)

    def _sizes(self, deviation: float) -> Array:
        """Panel edges in |u|: geometric from the finer scale, and where kinks meet."""
        top = _CUT * deviation
        bottom = min(deviation, self._scale()) / 2
        panels = int(np.ceil(np.log(top / bottom) / np.log(3)))
        edges = [0.0, *np.geomspace(bottom, top, panels + 1)]
        kinks = np.array(self.f.kinks)
        apart = np.abs(kinks[:, None] - kinks).ravel()
        for weight in (1.0, *self.law.weights):
            edges += [d for d in apart / weight if 0 < d < top]
        return np.array(edges)

    def _kinks_met(self, edges: Array, sign: float) -> list[float]:
        """|u| where S vanishes at a kink, as one of its three arguments sees it.

        The root of S bends there, and with it the mean given u.
        """
        w1, w2 = self.law.weights
        return [
            size
            for kink in self.f.kinks
            for slope in (0.0, w1, -w2)
            for size in self._zeros_along(edges, sign, slope, kink)
        ]

    def _ends_met(self, edges: Array, sign: float, drift: float) -> list[float]:
        """|u| where an end of the range of x passes a bend of |S|.

        When m follows u closely the mean given u bends there too.
        """
        w1, w2 = self.law.weights
        marks = np.append(np.linspace(*self.f.reach, 17), self.f.kinks)
        found: list[float] = []
        for shift in (-self.k, self.k):
            for slope in (drift, drift + w2, drift - w1):
                if slope != 0:
                    found.extend(sign * (marks - shift) / slope)
            found.extend(self._zeros_along(edges, sign, drift, shift))
        return found

    def _zeros_along(
        self, edges: Array, sign: float, slope: float, start: float
    ) -> list[float]:
        """|u| up to the last edge where S changes sign along m = start + slope u."""

        def along(size: Array) -> Array:
            u = sign * size
            return self._difference(start + slope * u, u)

        top = edges.max()
        size = np.unique(np.concatenate([edges, np.geomspace(1e-3, 1, 300) * top]))
        value = along(size)
        clear = np.abs(value) > 8 * np.finfo(float).eps * (size + abs(start))
        size, value = size[clear], value[clear]
        here = np.nonzero(value[1:] * value[:-1] < 0)[0]
        if here.size == 0:
            return []
        found = elementwise.find_root(along, (size[here], size[here + 1]))
        return list(found.x[found.success])

    def _given(self, u: Array, drift: float, spread: float) -> Array:
        """The integral over m of |S(m, u)| P(|x| < k | m, u), for each u."""
        w1, w2 = self.law.weights
        low, high = self.f.reach
        arms = np.stack([0 * u, w2 * u, -w1 * u], axis=1)
        ends = drift * u[:, None] + np.array([-self.k, self.k])
        first = np.maximum(low - arms.max(axis=1), ends[:, 0] - _CUT * spread)
        last = np.minimum(high - arms.min(axis=1), ends[:, 1] + _CUT * spread)
        last = np.maximum(first, last)
        marks = [*np.linspace(low, high, _PIECES + 1), *self.f.kinks]
        marks += self.f.inflections
        seen = (np.array(marks)[:, None] - arms[:, None, :]).reshape(len(u), -1)
        bends = (ends[:, :, None] + spread * _BENDS).reshape(len(u), -1)
        edges = np.concatenate([seen, bends, first[:, None], last[:, None]], axis=1)
        edges = np.clip(edges, first[:, None], last[:, None])
        edges = np.concatenate([edges, self._roots(edges, u)], axis=1)
        m, measure = panel_rule(edges)
        inside = self._chance(m - ends[:, :1], m - ends[:, 1:], spread)
        value: Array = (np.abs(self._difference(m, u[:, None])) * inside * measure).sum(
            axis=1
        )
        return value

    def _chance(self, above: Array, below: Array, spread: float) -> Array:
        if spread == 0:
            return ((above > 0) & (below < 0)).astype(float)
        return ndtr(above / spread) - ndtr(below / spread)

    def _roots(self, edges: Array, u: Array) -> Array:
        """Where S changes sign in m, for each u; an edge again where it does not.

        S changes sign as often as f' turns, in all that was seen; two more have room.
        """
        turns = len(self.f.inflections) + len(self.f.kinks) + 2
        edges = np.sort(edges, axis=1)
        width = np.diff(edges)[..., None]
        grid = (edges[:, :-1, None] + width * _LOOK).reshape(len(u), -1)
        columns = np.broadcast_to(u[:, None], grid.shape)
        value = self._difference(grid, columns)
        # The rounding of a difference, which is all there is where f is straight.
        rounding = 8 * np.finfo(float).eps * (np.abs(self.f(grid)) + np.abs(columns))
        rounding *= ~self._small(columns)
        clear = np.where(np.abs(value) > rounding, np.sign(value), 0)
        # Carry each sign over the flat stretches, where S is zero to rounding.
        last = np.maximum.accumulate(
            np.where(clear != 0, np.arange(grid.shape[1]), 0), axis=1
        )
        carried = np.take_along_axis(clear, last, axis=1)
        row, column = np.nonzero(carried[:, 1:] * carried[:, :-1] < 0)
        roots = np.repeat(edges[:, :1], turns, axis=1)
        if row.size == 0:
            return roots
        left, right = grid[row, last[row, column]], grid[row, column + 1]
        found = elementwise.find_root(self._difference, (left, right), args=(u[row],))
        order = np.zeros(len(u), dtype=int)
        for r, x in zip(row, np.where(found.success, found.x, left), strict=True):
            if order[r] < roots.shape[1]:
                roots[r, order[r]] = x
                order[r] += 1
        return roots

    def _small(self, u: Array) -> NDArray[np.bool_]:
        return np.abs(u) < _SMALL * self._scale()

    def _difference(self, m: Array, u: Array) -> Array:
        """S(m, u), as a mean of f'' and of its jumps where the difference is lost.

        It is lost to rounding where u is small, and where f is nearly straight.
        """
        u = np.broadcast_to(u, m.shape)
        w1, w2 = self.law.weights
        here = self.f(m)
        result: Array = w1 * self.f(m + w2 * u) + w2 * self.f(m - w1 * u) - here
        straight = np.abs(result) < _LOST * (np.abs(here) + np.abs(u))
        lost = self._small(u) | (straight & (np.abs(u) < self._scale() / 2))
        result[lost] = self._under_hat(m[lost], u[lost])
        return result

    def _under_hat(self, m: Array, u: Array) -> Array:
        """int H(t - m) df'(t), H the hat on (-w_1 u, w_2 u), split at kinks of f."""
        w1, w2 = self.law.weights
        low, high = m - np.where(u > 0, w1, -w2) * u, m + np.where(u > 0, w2, -w1) * u
        cuts = [np.clip(kink, low, high) for kink in self.f.kinks]
        edges = np.sort(np.stack([low, m, high, *cuts], axis=-1), axis=-1)
        total = np.zeros_like(m)
        for a, b in zip(edges.T[:-1], edges.T[1:], strict=True):
            for node, weight in zip(_HAT_NODES, _HAT_WEIGHTS, strict=True):
                t = (a + b) / 2 + (b - a) / 2 * node
                hat = self._hat(t - m, u)
                total += weight * (b - a) / 2 * hat * self.f.curvature(t)
        for kink, jump in zip(self.f.kinks, self.f.jumps, strict=True):
            total += jump * self._hat(kink - m, u)
        return total

    def _hat(self, t: Array, u: Array) -> Array:
        """w_1 (w_2 u - t)_+ + w_2 (-w_1 u - t)_+ - (-t)_+, which vanishes outside."""
        w1, w2 = self.law.weights
        near = np.where(t * np.sign(u) > 0, w1 * (w2 * np.abs(u) - np.abs(t)), 0)
        far = np.where(t * np.sign(u) <= 0, w2 * (w1 * np.abs(u) - np.abs(t)), 0)
        hat: Array = np.maximum(near + far, 0)
        return hat

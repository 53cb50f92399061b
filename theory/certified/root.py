r"""A polynomial beside the root m*(u) past which S(., u) is negative.

S(., u) has one positive root. Let r be the inflection of f and g = f' - 1/2, which is
odd, rises up to r and falls beyond. Of f is needed that f''(w) / |f''(2m - w)| falls
as w rises from 0 to r, for each m >= r (`theory.certified.smooth` has the proofs).

* At m = r the ratio falls to 1. So f''(r - v) > |f''(r + v)|, and g(r + v) > g(r - v).
* m <= r: dS/du = (g(m+u) - g(m-u))/2 is positive, since g is odd if u > m, since g
  rises if m + u <= r, and else since g(m+u) > g(2r - m - u) >= g(m-u). So S > 0.
* m > r: dS/du is negative up to u = m - r and positive from u = m. Between them its
  derivative, (f''(m+u) + f''(m-u))/2, turns positive once, as the ratio passes 1. So S
  falls and then rises in u, and has one zero, where g(m-u) < g(m+u) < g(m). There
  dS/dm = (g(m+u) + g(m-u))/2 - g(m) < 0.
* So S(., u) falls through 0 wherever it is 0, which it can do once; and it does, being
  positive at 0 and negative past r + u.

A polynomial c(u) that misses m* by a little costs little: where S falls in m, |S| is
at most |S(c(u), u)| between the two, and

    int between of |S(m, u)| dm <= S(c(u), u)^2 / min |dS/dm|.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import ceil, log2

from flint import acb, arb, arb_poly, fmpz_poly

from theory.certified.difference import difference, scaled_difference_over
from theory.certified.gaussian import Ball
from theory.certified.smooth import SmoothActivation

_PIECES = 12
_SIDE_PIECES = 4


@dataclass(frozen=True)
class RootCurve:
    """c(u) - u on [start, stop], as a polynomial in t from -1 to 1.

    Between c(u) and m*(u) the integral of |S| is at most sliver * u^2.
    """

    start: arb
    stop: arb
    polynomial: arb_poly
    sliver: arb

    def offset(self, u: Ball) -> Ball:
        """c(u) - u."""
        return self.polynomial((u - self._centre) / self._half)

    def root(self, u: Ball) -> Ball:
        """c(u), tighter over a box than the sum of its two parts."""
        whole = self.polynomial + arb_poly([self._centre, self._half])
        return whole((u - self._centre) / self._half)

    @property
    def _centre(self) -> arb:
        return (self.start + self.stop) / 2

    @property
    def _half(self) -> arb:
        return (self.stop - self.start) / 2


def root_curve(
    f: SmoothActivation, start: arb, stop: arb, *, limit: arb
) -> RootCurve | None:
    """A curve with a sliver below `limit`, or None if [start, stop] is too long."""
    # The sliver falls by 16 with each node; see _residual.
    count = 2 + ceil(log2(100 / float(limit)) / 4)
    points = [-(arb.pi() * (2 * i + 1) / (2 * count)).cos() for i in range(count)]
    nodes = [(start + stop) / 2 + (stop - start) / 2 * t for t in points]
    polynomial = _interpolant(points, _offsets(f, nodes))
    curve = RootCurve(start, stop, polynomial, arb.nan())
    residual, slope = _residual(f, curve, nodes), _least_slope(f, curve)
    # S changes sign within residual / slope of the curve if its slope is known there.
    if not (slope > 0 and residual / slope < _margin(f)):
        return None
    sliver = residual**2 / slope
    return RootCurve(start, stop, polynomial, sliver) if sliver < limit else None


def _margin(f: SmoothActivation) -> arb:
    """How far on either side of the curve the slope of S is bounded."""
    return f.reach() / 50


def _offsets(f: SmoothActivation, nodes: list[arb]) -> list[arb]:
    """m*(u) - u at increasing u by Newton's method: a guess, certified afterwards."""
    root = f.inflection().mid()
    offsets = []
    for u in nodes:
        for _ in range(40):
            slope = difference(f.slope_excess, root - u, u)
            step = difference(f.excess, root - u, u) / slope
            root = (root - step).mid()
            if abs(step) < arb(2) ** -60:
                break
        offsets.append(root - u)
    return offsets


def _interpolant(points: list[arb], values: list[arb]) -> arb_poly:
    """Through values at the Chebyshev points, but for rounding; its centres are it."""
    total = arb_poly([0])
    for j in range(len(points)):
        projection = arb(0)
        for t, value in zip(points, values, strict=True):
            projection += value * t.chebyshev_t(j) * (2 if j else 1) / len(points)
        total += arb_poly(fmpz_poly.chebyshev_t(j)) * projection
    return arb_poly([c.mid() for c in total.coeffs()])


def _residual(f: SmoothActivation, curve: RootCurve, nodes: list[arb]) -> arb:
    """A bound on |S(c(u), u)| / u^2 over the interval.

    It is analytic in u. With M a bound on it within 4r of the interval, whose length
    is 2r, the Taylor coefficients of order n are at most M / (2r)^n, so it differs
    from its interpolant at n Chebyshev nodes by at most 2 M (r/2)^n / (2r)^n; and the
    interpolant is at most 1 + (2/pi) log n times its largest node value.
    """
    largest = arb(0)
    for u in nodes:
        scaled = difference(f.excess, curve.offset(u), u) / (u * u)
        largest = largest.max(abs(scaled).upper())
    lebesgue = 1 + 2 / arb.pi() * arb(len(nodes)).log()
    return largest * lebesgue + _largest_around(f, curve) * 2 / arb(4) ** len(nodes)


def _largest_around(f: SmoothActivation, curve: RootCurve) -> arb:
    """|S(c(u), u)| / u^2 within one length of the interval; infinite if unknown."""
    boundary = _upper_boundary(curve.start, curve.stop)
    pairs = [(curve.offset(u), u) for u in boundary]
    if not all(f.analytic_inside([o + j * u for o, u in pairs]) for j in range(3)):
        return arb.pos_inf()
    sizes = [abs(scaled_difference_over(f, o, u)).upper() for o, u in pairs]
    return max(sizes) if all(s.is_finite() for s in sizes) else arb.pos_inf()


def _upper_boundary(start: arb, stop: arb) -> list[acb]:
    """The upper half of the rectangle one length around [start, stop], in pieces."""
    length = stop - start
    left, right = start - length, stop + length
    top = [acb(x, length) for x in _pieces(left, right, _PIECES)]
    sides = _pieces(arb(0), length, _SIDE_PIECES)
    return top + [acb(x, y) for x in (left, right) for y in sides]


def _pieces(start: arb, stop: arb, count: int) -> list[arb]:
    cuts = [start + (stop - start) * i / count for i in range(count + 1)]
    return [low.union(high) for low, high in pairwise(cuts)]


def _least_slope(f: SmoothActivation, curve: RootCurve) -> arb:
    """A lower bound on -dS/dm / u^2 within the margin of the curve; nan if unknown."""
    margin = _margin(f) * arb(0, 1)
    least = arb.pos_inf()
    for u in _pieces(curve.start, curve.stop, _PIECES):
        offset = curve.offset(u) + margin
        slope = -scaled_difference_over(f, offset, u, derivative=True)
        least = least.min(slope.lower())
    return least

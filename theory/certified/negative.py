r"""E[S^-], the part that makes E|S| = E[S] + 2 E[S^-] differ from the signed gap.

The errors' half-sum n and half-difference u are independent N(0, s^2), s^2 =
sigma^2 / 2, and S is even in m = x + n and in u. With P(m) = P(|m + s Z| < k),

    (k/2) E[S^-] = int_0^inf phi(u/s)/s int_{m*(u)}^inf -S(m, u) P(m) dm du,

where the lower end is replaced by a polynomial (`theory.certified.root`), so that
the inner integral is analytic in u. It runs over offset = m - u.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from flint import acb, arb

from theory.certified.difference import difference, scaled_difference_over
from theory.certified.gaussian import Ball, chance_over, density, inside, upper_tail
from theory.certified.root import RootCurve, root_curve
from theory.certified.smooth import SmoothActivation

_STRIPS = 10
_UNDECIDED = acb(arb.nan())


def negative_part(
    f: SmoothActivation, k: arb, sigma: arb, *, end: arb, tolerance: arb
) -> arb:
    """(k/2) E[S^-], integrated up to m = u + `end` with the rest enclosed.

    `end` is at least the inflection, `tolerance` the absolute error aimed at.
    Raises ArithmeticError where the root of S cannot be followed.
    """
    s = sigma / arb(2).sqrt()
    limit = tolerance / (8 * s * s)
    variation = f.total_variation()
    reach = _reach(s, tolerance / 16)
    # A hat has mass u^2, so int_end^inf -S dm <= u^2/2 (f'(end) - 1), and over all
    # m > 0 it is at most u^2/2 times the variation of f' past its inflection.
    bounds = f.slope_excess(end) / 4 * s * s
    bounds += f.turning_excess() / 2 * s * s * _second_moment_beyond(reach / s)
    total = arb(0)
    for start, stop in _panels(f, reach):
        for curve in _curves(f, start, stop, limit=limit):
            inner = _Inner(f, k, s, curve, end, variation, tolerance / 16)
            total += inner.mean()
            bounds += curve.sliver * s * s * _second_moment_beyond(curve.start / s)
    return total + arb(0).union(bounds)


def _reach(s: arb, tolerance: arb) -> arb:
    """Where u stops: less than the tolerance lies beyond."""
    count = 4
    while not s * s * _second_moment_beyond(arb(count)) < tolerance:
        count += 1
    return (s * count).mid()


def _second_moment_beyond(z: arb) -> arb:
    """E[Z^2; Z > z]."""
    return z * density(z) + upper_tail(z)


def _panels(f: SmoothActivation, reach: arb) -> Iterator[tuple[arb, arb]]:
    """Intervals of u over which the root is nearly a polynomial."""
    start = arb(0)
    while start < reach:
        step = (f.reach() / 2).max(start * 2 / 5)
        stop = (start + step).min(reach).mid()
        yield start, stop
        start = stop


def _curves(
    f: SmoothActivation, start: arb, stop: arb, *, limit: arb, depth: int = 12
) -> Iterator[RootCurve]:
    """Certified root curves that together span [start, stop]."""
    curve = root_curve(f, start, stop, limit=limit)
    if curve is not None:
        yield curve
    elif depth == 0:
        raise ArithmeticError(f"the root of S is lost in [{start}, {stop}]")
    else:
        middle = ((start + stop) / 2).mid()
        yield from _curves(f, start, middle, limit=limit, depth=depth - 1)
        yield from _curves(f, middle, stop, limit=limit, depth=depth - 1)


@dataclass(frozen=True)
class _Inner:
    """phi(u/s)/s int_{c(u)}^{u + end} -S(m, u) P(m) dm as a function of u."""

    f: SmoothActivation
    k: arb
    s: arb
    curve: RootCurve
    end: arb
    variation: arb
    tolerance: arb

    def mean(self) -> arb:
        """The integral over the curve's interval."""
        curve = self.curve
        return acb.integral(
            self._value, curve.start, curve.stop, abs_tol=self.tolerance
        ).real

    def _value(self, u: acb, analytic: bool) -> acb:  # noqa: FBT001  # flint's signature
        del analytic  # boxes where the integrand is not analytic come back undecided
        if u.imag == 0 and u.real.rad() < self.s * arb(2) ** -50:
            return acb(self._at(u.real))
        return self._over(u)

    def _at(self, u: arb) -> arb:
        """The inner integral at a point, cut where P falls from 1 to 0."""
        start, fall = self.curve.offset(u), self.k - u
        total = arb(0)
        for cut in (fall - 10 * self.s, fall, fall + 10 * self.s, self.end):
            stop = cut.max(start).min(self.end).mid()
            if start < stop:
                total += self._piece(u, start, stop)
                start = stop
        return total * density(u / self.s) / self.s

    def _piece(self, u: arb, start: arb, stop: arb) -> arb:
        """int -S P dm over a stretch of m - u; P is left out where it is 0 or 1."""
        chance = inside(u + start.union(stop), self.k, self.s)
        # A bound on int |S| dm over all m > 0.
        mass = self.variation * u * u / 2
        if mass * chance.upper() < self.tolerance:
            return mass * chance.upper() * arb(0, 1)
        outside = 1 - chance.lower()
        certain = outside < arb(2) ** -60

        def weighted(offset: Ball, at: Ball) -> Ball:
            gap = -difference(self.f.excess, offset, at)
            return gap if certain else gap * inside(offset + at, self.k, self.s)

        def integrand(offset: acb, analytic: bool) -> acb:  # noqa: FBT001
            del analytic  # meromorphic: at a pole the ball is not finite by itself
            if offset.imag == 0:
                return acb(weighted(offset.real, u))  # real arithmetic is faster
            return weighted(offset, acb(u))

        found = acb.integral(integrand, start, stop, abs_tol=self.tolerance).real
        return found + outside * mass * arb(0, 1) if certain else found

    def _over(self, u: acb) -> acb:
        """A ball around every value in a box of u, or one that is not finite."""
        start, root = self.curve.offset(u), self.curve.root(u)
        largest = arb(0)
        for i in range(_STRIPS):
            t = (arb(i) / _STRIPS).union(arb(i + 1) / _STRIPS)
            offset = start + (self.end - start) * t
            if not all(self.f.analytic_inside([offset + j * u]) for j in range(3)):
                return _UNDECIDED
            gap = scaled_difference_over(self.f, offset, u)
            m = root + (self.end - start) * t
            largest += abs(gap).upper() * chance_over(m, self.k, self.s)
        weight = density(u / self.s) / self.s
        bound = abs(weight * u * u * (self.end - start)).upper() * largest / _STRIPS
        return acb(arb(0, bound), arb(0, bound)) if bound.is_finite() else _UNDECIDED

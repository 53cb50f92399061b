r"""GELU, SiLU and quick-GELU in ball arithmetic.

Each is x/2 plus an even function, has slopes 0 and 1 at infinity, and curvature
positive between its two inflections and negative beyond them. Everything is given
less x, so that it vanishes at plus infinity.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from flint import acb, arb, fmpq

from theory.certified.gaussian import Ball, density, upper_tail


class SmoothActivation(ABC):
    """f and its derivatives, in real or complex balls."""

    @abstractmethod
    def reach(self) -> arb:
        """A distance over which f'' varies; only speed depends on it."""

    @abstractmethod
    def excess(self, x: Ball) -> Ball:
        """f(x) - x."""

    @abstractmethod
    def slope_excess(self, x: Ball) -> Ball:
        """f'(x) - 1, positive and decreasing to 0 past the inflection."""

    @abstractmethod
    def curvature(self, x: Ball) -> Ball:
        """f''(x), even."""

    @abstractmethod
    def curvature_slope(self, x: Ball) -> Ball:
        """f'''(x), odd."""

    @abstractmethod
    def inflection(self) -> arb:
        """The positive root of f''."""

    @abstractmethod
    def analytic_inside(self, boundary: Iterable[acb]) -> bool:
        """Whether f is analytic in a disc whose image's boundary is covered by these.

        May answer False too often, never True wrongly.
        """

    def turning_excess(self) -> arb:
        """f' - 1 where f' is largest, the variation of f' beyond the inflection."""
        return self.slope_excess(self.inflection())

    def total_variation(self) -> arb:
        """TV(f'): down to 1 - F, up to F and down to 1, for F the largest slope."""
        return 1 + 4 * self.turning_excess()


class Gelu(SmoothActivation):
    """x Phi(x), with the inflection r = sqrt 2.

    f''(w) / |f''(x)| falls in w at fixed w + x >= 2r, 0 < w < r: with (log |f''|)' =
    -y + 1/(y - r) + 1/(y + r) at w and at x, and 1/(x - r) <= 1/(r - w), the sum of
    the two is at most -2r + 2/r < 0.
    """

    def reach(self) -> arb:
        """1, the width of phi."""
        return arb(1)

    def excess(self, x: Ball) -> Ball:
        """-x Phi(-x)."""
        return -x * upper_tail(x)

    def slope_excess(self, x: Ball) -> Ball:
        """x phi(x) - Phi(-x)."""
        return x * density(x) - upper_tail(x)

    def curvature(self, x: Ball) -> Ball:
        """(2 - x^2) phi(x)."""
        return (2 - x * x) * density(x)

    def curvature_slope(self, x: Ball) -> Ball:
        """x (x^2 - 4) phi(x)."""
        return x * (x * x - 4) * density(x)

    def inflection(self) -> arb:
        """sqrt 2."""
        return arb(2).sqrt()

    def analytic_inside(self, boundary: Iterable[acb]) -> bool:
        """Always: GELU is entire."""
        del boundary
        return True


@dataclass(frozen=True)
class SigmoidWeighted(SmoothActivation):
    """x * sigmoid(scale * x): SiLU at scale 1, quick-GELU at 1.702.

    With y = scale * x, g = sigmoid(-y) and t = tanh(y/2) = 1 - 2g. The poles are at
    y = +-i pi, +-3i pi, ...

    f''(w) / |f''(x)| falls in w at fixed w + x >= 2r, 0 < w < r, here in units of y.
    Up to a factor f'' is (1 - t^2)(2 - b) with b = y t, and (log |f''|)' is
    -t - a/(2 - b) with a = b'. As a' = (1 - t^2)(1 - b/2), a is largest at r, where
    b = 2 and a = 1/t. So a(x)/(b(x) - 2) <= 1/(x - r) <= 1/(r - w) and
    2 - b(w) <= (r - w) a(r). The two derivatives sum to less than
    -t(x) + (1 - a(w)/a(r))/(r - w) < -t(r) + 1/a(r) = 0, for a' < 1.
    """

    scale: fmpq

    def reach(self) -> arb:
        """2 / scale."""
        return 2 / arb(self.scale)

    def _gate(self, x: Ball) -> tuple[Ball, Ball]:
        """y and g; over a wide ball the form with the smaller exponential is tight."""
        y = x * arb(self.scale)
        if y.real > 0:
            small = (-y).exp()
            return y, small / (1 + small)
        return y, 1 / (1 + y.exp())

    def excess(self, x: Ball) -> Ball:
        """-x g."""
        _, g = self._gate(x)
        return -x * g

    def slope_excess(self, x: Ball) -> Ball:
        """g (y (1 - g) - 1)."""
        y, g = self._gate(x)
        return g * (y * (1 - g) - 1)

    def curvature(self, x: Ball) -> Ball:
        """scale g (1 - g) (2 - y t)."""
        y, g = self._gate(x)
        return arb(self.scale) * g * (1 - g) * (2 - y * (1 - 2 * g))

    def curvature_slope(self, x: Ball) -> Ball:
        """-scale^2 g (1 - g) (3t + y/2 - 3 y t^2 / 2)."""
        y, g = self._gate(x)
        t = 1 - 2 * g
        turn = 3 * t + y / 2 - 3 * y * t * t / 2
        return -(arb(self.scale) ** 2) * g * (1 - g) * turn

    def inflection(self) -> arb:
        """Where y tanh(y/2) = 2, by bisection: the left side increases."""
        low, high = arb(2), arb(3)
        while (middle := ((low + high) / 2).mid()) not in (low, high):
            above = middle * (middle / 2).tanh() - 2
            if above > 0:
                high = middle
            elif above < 0:
                low = middle
            else:
                break
        return low.union(high) / arb(self.scale)

    def analytic_inside(self, boundary: Iterable[acb]) -> bool:
        """No pole: all to the right of 0, or all below the first pole's height.

        Both parts of an analytic map are harmonic, so what holds on the boundary of
        a disc holds inside.
        """
        arcs = [x * arb(self.scale) for x in boundary]
        return all(y.real > 0 for y in arcs) or all(
            abs(y.imag) < arb.pi() for y in arcs
        )


GELU = Gelu()
SILU = SigmoidWeighted(fmpq(1))
QUICK_GELU = SigmoidWeighted(fmpq(1702, 1000))

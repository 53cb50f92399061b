"""Two floats that provably hold a number between them."""

from dataclasses import dataclass
from math import inf, nextafter

from flint import arb


@dataclass(frozen=True)
class Enclosure:
    """A closed interval proved to hold a number; its ends are rounded outward."""

    lower: float
    upper: float

    def __post_init__(self) -> None:
        """Refuse ends that are not a finite interval."""
        if not -inf < self.lower <= self.upper < inf:
            raise ValueError(f"no finite interval: [{self.lower}, {self.upper}]")

    def contains(self, value: float) -> bool:
        """Whether the number may be `value`."""
        return self.lower <= value <= self.upper

    @property
    def width(self) -> float:
        """The length of the interval."""
        return self.upper - self.lower

    @property
    def midpoint(self) -> float:
        """A float halfway between the ends."""
        return self.lower + self.width / 2


def outward(ball: arb) -> Enclosure:
    """The narrowest floats around a ball, to one unit in the last place."""
    lower, upper = ball.lower(), ball.upper()
    low, high = float(lower), float(upper)
    if not arb(low) <= lower:
        low = nextafter(low, -inf)
    if not arb(high) >= upper:
        high = nextafter(high, inf)
    return Enclosure(low, high)

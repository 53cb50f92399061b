"""Mean and scatter of numbers that arrive in blocks."""

from dataclasses import dataclass
from math import sqrt

from simulate.activations import Array


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations from that mean."""

    count: int
    mean: float
    scatter: float

    @classmethod
    def of(cls, values: Array) -> "Moments":
        """Moments of one non-empty block [n], by the two-pass formula."""
        mean = float(values.mean())
        deviation = values - mean
        return cls(len(values), mean, float((deviation * deviation).sum()))

    def __add__(self, other: "Moments") -> "Moments":
        """Moments of both blocks together (Chan, Golub and LeVeque 1979)."""
        count = self.count + other.count
        apart = other.mean - self.mean
        return Moments(
            count,
            self.mean + apart * other.count / count,
            self.scatter + other.scatter + apart**2 * self.count * other.count / count,
        )

    @property
    def stderr(self) -> float:
        """Standard error of the mean; needs a count of at least 2."""
        return sqrt(self.scatter / (self.count - 1) / self.count)

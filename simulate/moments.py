"""Mean and standard error of numbers that arrive in blocks."""

from dataclasses import dataclass
from math import sqrt

from simulate.backends import Block


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of independent numbers."""

    count: int
    mean: float
    scatter: float

    @classmethod
    def of(cls, values: Block) -> "Moments":
        """Moments of one non-empty block [n], by the two-pass formula."""
        mean = float(values.sum()) / len(values)
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
    def degrees(self) -> int:
        """Degrees of freedom of the standard error."""
        return self.count - 1

    @property
    def stderr(self) -> float:
        """Standard error of the mean; needs a count of at least 2."""
        return sqrt(self.scatter / (self.count - 1) / self.count)


@dataclass(frozen=True)
class Strata:
    """Count, mean and within-stratum scatter of strata with two samples each."""

    count: int
    mean: float
    scatter: float

    @classmethod
    def of(cls, first: Block, second: Block) -> "Strata":
        """Strata [n] from their first and second samples."""
        half = (first - second) / 2
        mean = float(((first + second) / 2).mean())
        return cls(len(first), mean, float((half * half).sum()))

    def __add__(self, other: "Strata") -> "Strata":
        """Both sets of strata together; what lies between strata is no error."""
        count = self.count + other.count
        mean = self.mean + (other.mean - self.mean) * other.count / count
        return Strata(count, mean, self.scatter + other.scatter)

    @property
    def degrees(self) -> int:
        """Degrees of freedom of the standard error: one a stratum."""
        return self.count

    @property
    def stderr(self) -> float:
        """Standard error of the mean of equally likely strata."""
        return sqrt(self.scatter) / self.count

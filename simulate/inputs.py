"""Laws of the base pre-activation x, by their quantile functions."""

from dataclasses import dataclass
from math import pi, sqrt
from numbers import Real
from typing import TypeAlias

import numpy as np

from simulate.activations import Array
from simulate.backends import Backend, Block

_LEAST = 2.0**-54  # keeps the quantile function of an unbounded law finite


@dataclass(frozen=True)
class Uniform:
    """x ~ U(-half_width, half_width), the paper's law (section 4)."""

    half_width: float

    def __post_init__(self) -> None:
        """Refuse a half-width that is not a positive number."""
        positive("half_width", self.half_width)

    @property
    def spread(self) -> float:
        """Standard deviation."""
        return self.half_width / sqrt(3)

    def quantile(self, u: Block, ops: Backend) -> Block:  # noqa: ARG002 - as the other laws
        """Half_width (2 u - 1)."""
        return (u - 0.5) * (2 * self.half_width)

    def cdf(self, x: Block, ops: Backend) -> Block:
        """Share below x, 0 and 1 outside the support."""
        return ops.xp.clip(x / (2 * self.half_width) + 0.5, 0.0, 1.0)

    def density(self, x: Block, ops: Backend) -> Block:
        """1 / (2 half_width) inside the support."""
        inside = ops.xp.abs(x) <= self.half_width
        return inside * (0.5 / self.half_width)


@dataclass(frozen=True)
class Gaussian:
    """x ~ N(0, scale^2)."""

    scale: float

    def __post_init__(self) -> None:
        """Refuse a scale that is not a positive number."""
        positive("scale", self.scale)

    @property
    def spread(self) -> float:
        """Standard deviation."""
        return self.scale

    def quantile(self, u: Block, ops: Backend) -> Block:
        """Scale Phi^-1(u)."""
        return self.scale * normal_quantile(u, ops)

    def cdf(self, x: Block, ops: Backend) -> Block:
        """Phi(x / scale)."""
        return ops.special.ndtr(x / self.scale)

    def density(self, x: Block, ops: Backend) -> Block:
        """Normal density."""
        return normal_density(x / self.scale, ops) / self.scale


@dataclass(frozen=True)
class Laplace:
    """x with density exp(-|x| / scale) / (2 scale)."""

    scale: float

    def __post_init__(self) -> None:
        """Refuse a scale that is not a positive number."""
        positive("scale", self.scale)

    @property
    def spread(self) -> float:
        """Standard deviation."""
        return sqrt(2) * self.scale

    def quantile(self, u: Block, ops: Backend) -> Block:
        """Scale log(2 u) below the median and its mirror image above."""
        tail = ops.xp.clip(2 * ops.xp.minimum(u, 1 - u), 2 * _LEAST, 1.0)
        return -self.scale * ops.xp.sign(u - 0.5) * ops.xp.log(tail)

    def cdf(self, x: Block, ops: Backend) -> Block:
        """Share below x."""
        tail = ops.xp.exp(-ops.xp.abs(x) / self.scale) / 2
        return ops.xp.where(x < 0, tail, 1 - tail)

    def density(self, x: Block, ops: Backend) -> Block:
        """Double exponential density."""
        return ops.xp.exp(-ops.xp.abs(x) / self.scale) * (0.5 / self.scale)


@dataclass(frozen=True, eq=False)
class Empirical:
    """x drawn with equal chances from a sample [n], such as real pre-activations."""

    sample: Array

    def __post_init__(self) -> None:
        """Sort a finite sample, once; refuse any other."""
        values = np.asarray(self.sample, dtype=np.float64).reshape(-1)
        if not values.size or not np.isfinite(values).all():
            raise ValueError(
                f"sample must hold one or more finite numbers, got {self.sample!r}"
            )
        object.__setattr__(self, "sample", np.sort(values))

    @property
    def spread(self) -> float:
        """Standard deviation."""
        return float(self.sample.std())

    def quantile(self, u: Block, ops: Backend) -> Block:
        """The order statistic of rank floor(n u)."""
        ranks = ops.xp.asarray(u * len(self.sample), dtype=ops.xp.int64)
        return ops.asarray(self.sample)[ops.xp.clip(ranks, 0, len(self.sample) - 1)]


SmoothLaw: TypeAlias = Uniform | Gaussian | Laplace
InputLaw: TypeAlias = SmoothLaw | Empirical
InputLike: TypeAlias = float | InputLaw


def input_law(k: InputLike) -> InputLaw:
    """The law given, or the uniform law of half-width k."""
    if isinstance(k, InputLaw):
        return k
    return Uniform(positive("k", k))


def normal_quantile(u: Block, ops: Backend) -> Block:
    """Phi^-1(u), finite at u = 0 and 1 too, where rounding may put a sample."""
    return ops.special.ndtri(ops.xp.clip(u, _LEAST, 1 - 2 * _LEAST))


def normal_density(z: Block, ops: Backend) -> Block:
    """exp(-z^2 / 2) / sqrt(2 pi)."""
    return ops.xp.exp(-z * z / 2) / sqrt(2 * pi)


def positive(name: str, value: object) -> float:
    """Value as a float, refused unless it is a finite number above 0."""
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    number = float(value)
    if not 0 < number < np.inf:
        raise ValueError(f"{name} must be finite and above 0, got {value!r}")
    return number

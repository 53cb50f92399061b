"""How well a rate of agreement is known, from samples of one task or of several."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from jaxtyping import Float
from torch import Tensor

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A rate and its 95 % interval."""

    value: float
    low: float
    high: float


def wilson(values: Float[Tensor, " sample"]) -> Interval:
    """Wilson's (1927) score interval of a mean of numbers in [0, 1].

    It is made for zeros and ones; of fractions, which spread no more at the same mean,
    it holds at least as often. Never empty, also where all samples say the same.
    """
    n, mean = len(values), values.double().mean().item()
    z2 = NormalDist().inv_cdf((1 + LEVEL) / 2) ** 2
    centre = (mean + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (mean * (1 - mean) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    return Interval(mean, min(centre - half, mean), max(centre + half, mean))


def mean_of_strata(strata: Sequence[Float[Tensor, " sample"]]) -> Interval:
    """Mean over strata of their means, each of them as well known as `wilson` says.

    The distances to the limits add in squares, as those of independent samples do
    (Zou and Donner 2008). Of one stratum it is Wilson's interval.
    """
    each = [wilson(values) for values in strata]
    mean = math.fsum(one.value for one in each) / len(each)
    below = math.hypot(*(one.value - one.low for one in each)) / len(each)
    above = math.hypot(*(one.high - one.value for one in each)) / len(each)
    return Interval(mean, mean - below, mean + above)

"""Whether the samples tell the leading merge from those behind it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor

from mloss.compare.intervals import LEVEL

# Means of the same answers in another order differ by rounding, and are equal.
DIGITS = 12
# One tensor of samples for each task, or a single one where tasks share their samples.
Strata: TypeAlias = Sequence[Float[Tensor, " sample"]]


@dataclass(frozen=True)
class Lead:
    """By how much the leader's mean agreement exceeds another merge's.

    `stderr` is that of the difference, paired sample by sample. `separated` says
    whether the difference is more than noise (`leads`). `more` is about how many
    samples more, over all tasks, would separate the two if the difference is what it is
    here; None where they are separated or agree equally often.
    """

    over: str
    difference: float
    stderr: float
    separated: bool
    more: int | None


def leads(ranked: Sequence[tuple[str, Strata]]) -> tuple[Lead, ...]:
    """The lead of the first over each of the others, in their order.

    Differences count as noise up to z standard errors, one-sided, with an error rate of
    5 % shared between the rivals (Bonferroni). So the merge that is best on all samples
    there could be is the leader or not separated from it 95 % of the time, however many
    merges the leader was chosen from (multiple comparisons with the best, Hsu 1981).
    """
    (_, leader), *rivals = ranked
    z = NormalDist().inv_cdf(1 - (1 - LEVEL) / max(len(rivals), 1))
    return tuple(_lead(leader, strata, over=name, z=z) for name, strata in rivals)


def _lead(leader: Strata, rival: Strata, *, over: str, z: float) -> Lead:
    paired = [ours - theirs for ours, theirs in zip(leader, rival, strict=True)]
    found = math.fsum(d.mean().item() for d in paired) / len(paired)
    difference = round(found, DIGITS)
    stderr = _stderr(paired)
    separated = difference > z * stderr
    more = None
    if difference > 0 and not separated:
        samples = sum(map(len, paired))
        # A standard error falls with the root of the number of samples.
        more = math.ceil(samples * ((z * stderr / difference) ** 2 - 1)) or 1
    return Lead(over, difference, stderr, separated, more)


def _stderr(paired: Strata) -> float:
    """Standard error of the mean over strata, with one coin toss more than was seen.

    Where few samples tell two merges apart their spread is not known from the samples
    alone; one more sample that does, on either side, is Agresti and Min's (2005) cure.
    """
    spread = math.fsum((d - d.mean()).square().mean().item() / len(d) for d in paired)
    toss = 1 / min(map(len, paired))
    return math.sqrt(spread + toss**2) / len(paired)

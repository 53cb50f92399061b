"""Whether the samples of a score are enough."""

import math
from dataclasses import dataclass

from mloss.report.numbers import percent, round_percent
from mloss.score import Score, SiteScore

# A convention: the levels of a verdict lie factors of four and five apart, so an error
# of a twentieth seldom changes one.
ENOUGH = 0.05


@dataclass(frozen=True)
class Sampling:
    """How well the samples settle the layer means.

    `error` is the largest relative standard error of them, at `layer`; None for one
    sample, which has no error. `needed` is about the number of samples that would
    bring it to `ENOUGH`, as errors fall with the square root; None where it is not
    known and where the samples are enough.
    """

    samples: int
    layer: str
    error: float | None
    needed: int | None

    @property
    def enough(self) -> bool:
        """Whether every layer's mean is known to `ENOUGH`."""
        return self.error is not None and self.error <= ENOUGH


def sampling(score: Score) -> Sampling:
    """Judge the samples by the layer whose mean is least known."""
    least = max(score.sites, key=relative_error)
    error = relative_error(least)
    if not math.isfinite(error):
        return Sampling(score.samples, least.layer_name, error=None, needed=None)
    needed = (
        None if error <= ENOUGH else math.ceil(score.samples * (error / ENOUGH) ** 2)
    )
    return Sampling(score.samples, least.layer_name, error, needed)


def relative_error(site: SiteScore) -> float:
    """Standard error of the layer's M-Loss over it; zero where there is no loss."""
    return site.layer_stderr / site.layer if site.layer > 0 else 0.0


def in_words(found: Sampling) -> str:
    """Say whether the samples are enough, and what to do where they are not."""
    if found.error is None:
        return "One sample has no standard error: add samples."
    samples = f"{found.samples} samples give"
    if found.enough:
        return (
            f"{samples} every layer's mean M-Loss to {percent(found.error)} or better "
            "(standard error): enough."
        )
    return (
        f"{samples} the mean M-Loss of {found.layer} only to {percent(found.error)} "
        f"(standard error): too few. About {found.needed} would give "
        f"{round_percent(ENOUGH)}; --until {ENOUGH:g} adds them."
    )

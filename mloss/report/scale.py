"""Where a gap or an M-Loss lies on a scale of three levels.

The levels of the gap are conventions, placed where the embedded digits family turns:
merges of two and of eight fine-tunes at three learning rates change no more answers
than `CHANGED_ANSWERS` at each level. M-Loss alone cannot place a merge among them: the
gap was 5 to 8 times the median relative M-Loss (Eq. 6) of MiniLM with random steps, 13
to 115 times that of the digits family, and 316 to 763 times that of pairs of MiniLM
fine-tunes (docs/minilm.md). So M-Loss is called small where the largest of these
factors still makes the merge close, and large where the least makes it far.
"""

from dataclasses import dataclass

# How many standard errors either way a number may lie from where it was measured.
_ERRORS = 2.0


@dataclass(frozen=True)
class Scale:
    """Three levels from low to high, and the two limits between them."""

    levels: tuple[str, str, str]
    limits: tuple[float, float]

    def level(self, value: float) -> str:
        """The level of a number; one at a limit belongs above it."""
        return self.levels[sum(value >= limit for limit in self.limits)]

    def candidates(self, value: float, stderr: float | None) -> tuple[str, ...]:
        """Levels within two standard errors, low to high; all where it is not known."""
        if stderr is None:
            return self.levels
        low, high = (self.level(value + sign * _ERRORS * stderr) for sign in (-1, 1))
        first, last = self.levels.index(low), self.levels.index(high)
        return self.levels[first : last + 1]


# Relative gap: distance of the outputs over the size of the ensemble's.
GAP_SCALE = Scale(("close", "apart", "far"), (0.05, 0.2))
# Share of answers in which merge and ensemble differ, at most, at each of its levels.
CHANGED_ANSWERS = (0.03, 0.07, 0.2)

# Relative gap over median relative M-Loss, the least and the largest found.
FACTORS = (5, 1000)
MLOSS_SCALE = Scale(
    ("small", "moderate", "large"),
    (GAP_SCALE.limits[0] / FACTORS[1], GAP_SCALE.limits[1] / FACTORS[0]),
)

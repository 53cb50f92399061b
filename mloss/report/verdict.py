"""What a score, and the measured gap where there is one, mean for a merge."""

import math
from dataclasses import dataclass
from statistics import median

from mloss.gap import Gap
from mloss.report.numbers import finite, percent, percent_with_error, round_percent
from mloss.report.sampling import in_words, sampling
from mloss.report.scale import CHANGED_ANSWERS, FACTORS, GAP_SCALE, MLOSS_SCALE, Scale
from mloss.report.whereabouts import whereabouts
from mloss.score import Score

UNCLEAR = "unclear"

_IN_WORDS = {
    "close": "close to its ensemble",
    "apart": "apart from its ensemble",
    "far": "far from its ensemble",
}
_ADVICE = {
    "close": "It is a fair stand-in for the ensemble; whether either is accurate is "
    "for labelled data to say.",
    "apart": "Compare other methods or fewer sources before relying on it.",
    "far": "Do not expect the ensemble's answers from it; try other methods, fewer "
    "sources or other weights.",
    "small": "An average should stay close to the ensemble; measure the gap of the "
    "outputs to be sure.",
    "moderate": "How close an average is to the ensemble stays open: measure the gap "
    "of the outputs.",
    "large": "Expect an average to be far from the ensemble; measure by how much.",
    UNCLEAR: "Add samples before deciding.",
}
_GAP_LIMITS = (
    "Close is below {} and far from {} on, by convention. In the embedded digits "
    "family the merge then gave another answer than the ensemble on up to {} (close), "
    "{} (apart) and {} (far) of the images."
)
_MLOSS_LIMITS = (
    "The relative gap of the outputs was {} to {} times the median relative M-Loss in "
    "the networks this scale comes from (fine-tunes of digits and of MiniLM, MiniLM "
    "with random steps). "
    "Small is below {}, where even the largest factor makes a merge close; large is "
    "from {} on, where even the least makes it far."
)
_PART = (
    "M-Loss is not the gap of the outputs: carried to the output of the digits network "
    "it is 8 to 18 % of it, and what a block of fine-tuned MiniLM loses on one shared "
    "input is 2 to 4 % from the third block on. The rest is interaction between "
    "layers, and normalisation. "
    "Closeness to the ensemble is not accuracy."
)


@dataclass(frozen=True)
class Verdict:
    """A judgement a person can act on.

    `level` is one of `GAP_SCALE.levels` where a gap was measured, of
    `MLOSS_SCALE.levels` where only M-Loss was, or "unclear" where two standard errors
    reach over a limit. `basis` says what was measured, whether the samples are enough
    and where the limits come from.
    """

    level: str
    sentence: str
    basis: tuple[str, ...]


def verdict(score: Score, *, gap: Gap | None = None) -> Verdict:
    """Judge by the measured gap where it is given, else by M-Loss alone.

    M-Loss says where activations bend, on an input that the sources share at each
    layer. It is one part of the gap of the outputs and does not bound it.
    """
    return _by_mloss(score) if gap is None else _by_gap(score, gap)


def _by_gap(score: Score, gap: Gap) -> Verdict:
    stderr, size = 0.0, "without an ensemble to compare with: its output is zero"
    if math.isfinite(gap.relative):
        stderr = gap.relative * gap.stderr / gap.mean if gap.mean > 0 else 0.0
        size = percent_with_error(gap.relative, finite(stderr))
        size = f"by {size} of the ensemble's size"
    level, opening = _placed(GAP_SCALE, gap.relative, finite(stderr), of="the merge")
    numbers = map(round_percent, (*GAP_SCALE.limits, *CHANGED_ANSWERS))
    measured = (
        f"The gap is measured: the mean distance of the outputs over {gap.samples} "
        "samples, over the ensemble's mean size; the standard error is that of the "
        "distance."
    )
    opening = f"{opening}: their outputs differ {size}."
    return Verdict(
        level,
        f"{opening} {_ADVICE[level]} {whereabouts(score)}",
        (measured, in_words(sampling(score)), _GAP_LIMITS.format(*numbers), _PART),
    )


def _by_mloss(score: Score) -> Verdict:
    relative = median(site.layer_normalized for site in score.sites)
    stderr = finite(median(site.layer_normalized_stderr for site in score.sites))
    subject = "M-Loss between these models"
    level, opening = _placed(MLOSS_SCALE, relative, stderr, of=subject)
    size = f"{percent_with_error(relative, stderr)} of a layer's output"
    measured = (
        "M-Loss is measured at each layer on an input that all sources share; its part "
        "of the output is Eq. 6. The error is the median of the layers'."
    )
    limits = _MLOSS_LIMITS.format(*FACTORS, *map(percent, MLOSS_SCALE.limits))
    return Verdict(
        level,
        f"{opening}: {size} ({_spread(score)}). {whereabouts(score)} {_ADVICE[level]}",
        (measured, in_words(sampling(score)), limits, _PART),
    )


def _spread(score: Score) -> str:
    """Which layers and how many samples a median is over, and the largest of them."""
    worst = max(score.sites, key=lambda site: site.layer_normalized)
    if len(score.sites) == 1:
        return f"{worst.layer_name}, {score.samples} samples"
    return (
        f"median of {len(score.sites)} layers, {score.samples} samples; at most "
        f"{percent(worst.layer_normalized)}, in {worst.layer_name}"
    )


def _placed(
    scale: Scale, value: float, stderr: float | None, *, of: str
) -> tuple[str, str]:
    """The level, or "unclear", and the words that say it."""
    levels = scale.candidates(value, stderr)
    said = " or ".join(_IN_WORDS.get(level, level) for level in levels)
    if len(levels) > 1:
        return UNCLEAR, f"The samples leave open whether {of} is {said}"
    return levels[0], f"{of[0].upper()}{of[1:]} is {said}"

"""In which layers most of the M-Loss is."""

import math
from collections.abc import Sequence
from itertools import combinations

from mloss.report.layers import shares
from mloss.report.numbers import percent
from mloss.score import Score

_HALF = 0.5
# A run of layers stands out when it holds this many times its even share; by
# convention.
_STANDS_OUT = 1.5


def whereabouts(score: Score) -> str:
    """Name the shortest run of neighbouring layers that holds half of the M-Loss.

    Where that is hardly more than its even share, say that no layer stands out.
    """
    parts = [share for share in shares(score) if share is not None]
    if not parts:
        return "M-Loss is zero in every layer."
    names = [site.layer_name for site in score.sites]
    if len(parts) == 1:
        return f"All of the M-Loss is in {names[0]}, the only layer scored."
    start, end = _shortest_run(parts)
    held = math.fsum(parts[start:end])
    if held < _STANDS_OUT * (end - start) / len(parts):
        largest = max(range(len(parts)), key=parts.__getitem__)
        return (
            f"The M-Loss is spread over the {len(parts)} layers; the largest share, "
            f"{percent(parts[largest])}, is in {names[largest]}."
        )
    span = names[start] if end == start + 1 else f"{names[start]} to {names[end - 1]}"
    return f"{percent(held)} of the M-Loss is in {span}."


def _shortest_run(parts: Sequence[float]) -> tuple[int, int]:
    """First and last-plus-one of the shortest run with half, the fullest of those."""
    runs = combinations(range(len(parts) + 1), 2)
    sums = {run: math.fsum(parts[slice(*run)]) for run in runs}
    enough = [run for run, held in sums.items() if held >= _HALF]
    return min(enough, key=lambda run: (run[1] - run[0], -sums[run]))

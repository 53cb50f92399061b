"""Proved bounds on E[D] and its constants, in which the exact values must lie."""

from collections.abc import Iterable
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import cache

import numpy as np

from paper_checks.two_routes import RATIOS, THEORY, Agreement
from theory import Enclosure, certified_mloss

WIDTH = 1e-10  # relative, of each enclosure, and what expected_mloss promises


def interval(enclosure: Enclosure, *, decimals: int = 8) -> str:
    """[lower, upper], its ends rounded outward to so many decimals."""
    unit = Decimal(1).scaleb(-decimals)
    low = Decimal(enclosure.lower).quantize(unit, rounding=ROUND_FLOOR)
    high = Decimal(enclosure.upper).quantize(unit, rounding=ROUND_CEILING)
    return f"[{low}, {high}]"


@cache
def enclosures(name: str, sigma: float) -> tuple[Enclosure, ...]:
    """Proved bounds on E[D] of an activation at k = sigma * RATIOS."""
    return tuple(
        certified_mloss(THEORY[name], ratio * sigma, sigma, rtol=WIDTH)
        for ratio in RATIOS
    )


def doubt(name: str, cells: Iterable[Agreement]) -> str:
    """Why the exact values of an activation are not the proved ones, or nothing."""
    for cell in cells:
        proved = enclosures(name, cell.sigma)
        lower = np.array([each.lower for each in proved])
        upper = np.array([each.upper for each in proved])
        outside = np.maximum(lower - cell.exact, cell.exact - upper) / lower
        if outside.max() > WIDTH:
            at = float(RATIOS[int(outside.argmax())])
            return (
                f"the exact value at sigma = {cell.sigma:g}, k/sigma = {at:g} is "
                f"outside its proved bounds by {outside.max():.0e} of it"
            )
    return ""

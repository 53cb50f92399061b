"""Where to look for the gap of an activation: about its bends, as the sources see them.

Sources that see m + d_i have no gap unless a bend of f lies between the smallest and
the largest of m + d_i. Values of m are drawn there: about the curved part of f and
about each kink.
"""

from dataclasses import dataclass

import numpy as np

from theory.activations import Activation, Array
from theory.panels import panel_rule


@dataclass(frozen=True)
class Bends:
    """The curved part of f and its kinks; every array is [bend].

    Each lies between `low` and `high`, about `centre`, on the scale `width`; `share`
    is its part of the variation of f'.
    """

    low: Array
    high: Array
    centre: Array
    width: Array
    share: Array


def bends(f: Activation) -> Bends:
    """The bends of an activation, which has at least one."""
    low, high = f.reach
    t, measure = panel_rule(np.array([*np.linspace(low, high, 49), *f.kinks]))
    variation = np.abs(f.curvature(t)) * measure
    curved = float(variation.sum())
    rows = [(c, c, c, 0.0, abs(j)) for c, j in zip(f.kinks, f.jumps, strict=True) if j]
    if curved > 0:
        centre = float(t @ variation) / curved
        width = float(np.abs(t - centre) @ variation) / curved
        rows.append((low, high, centre, width, curved))
    assert rows, "a straight line has no gap to look for"
    lows, highs, centres, widths, variations = np.array(rows).T
    return Bends(lows, highs, centres, widths, variations / variations.sum())


def place(
    found: Bends, position: Array, *, merged: Array, departure: Array, k: float
) -> tuple[Array, Array]:
    """A value of m for each position in (0, 1), and the density it was drawn from.

    For merged errors [point] and departures [point, source]; m is within `merged`
    +- k. The position chooses a bend by its share, then a place from a Cauchy density
    about that bend, cut to where it acts. The density is that of all bends together,
    and 0 where the chosen one is out of bounds: such a point counts for nothing.
    """
    down, up = departure.min(axis=1), departure.max(axis=1)
    first = np.maximum(found.low[:, None] - up, merged - k)
    last = np.maximum(np.minimum(found.high[:, None] - down, merged + k), first)
    centre, width = found.centre[:, None], found.width[:, None] + up - down
    start = np.arctan((first - centre) / width)
    span = np.arctan((last - centre) / width) - start
    edges = np.append(0.0, np.cumsum(found.share))
    chosen = np.clip(np.searchsorted(edges, position) - 1, 0, len(found.share) - 1)
    at = (chosen, np.arange(len(position)))
    within = (position - edges[chosen]) / found.share[chosen]
    m = found.centre[chosen] + width[at] * np.tan(start[at] + within * span[at])
    m = np.clip(m, first[at], last[at])
    acts = (first <= m) & (m <= last) & (span > 0)
    bell = span * width * (1 + ((m - centre) / width) ** 2)
    each = np.divide(found.share[:, None], bell, out=np.zeros_like(bell), where=acts)
    return m, np.where(span[at] > 0, each.sum(axis=0), 0.0)

"""The parts of a gap in plain sentences."""

import math
from itertools import combinations

from mloss.curvature.groups import ROLES, Role
from mloss.curvature.parts import GapParts

_IN_WORDS: dict[Role, str] = {
    "activation": "the layers that feed activations, where M-Loss lies",
    "attention": "attention",
    "norm": "normalisation",
    "linear": "other linear layers",
}
_HALF = 0.5


def in_words(parts: GapParts) -> str:
    """How large the gap is, what kind of parameters make it, and in which blocks.

    The blocks named are the shortest run, in the state's order, that holds at least
    half of the second-order gap: what its blocks do among themselves where `between`
    is known, and their part of everything otherwise. Where second order misses over
    half of the gap the text says that its parts explain little.
    """
    alone, rough = parts.within.sum().item(), parts.remainder > _HALF
    return (
        f"The merge is {parts.gap:.3g} away from the ensemble; second order says "
        f"{parts.second_order:.3g} and is off by {_percent(parts.remainder)} of it"
        f"{', too far for its parts to explain much' if rough else ''}.\n"
        f"{_percent(1 - alone)} of the second-order gap is interaction between groups "
        f"of parameters, {_percent(alone)} what they do alone: {_by_role(parts)}.\n"
        f"{_by_block(parts)}"
    )


def _by_role(parts: GapParts) -> str:
    shares = dict.fromkeys(ROLES, 0.0)
    for group, share in zip(parts.groups, parts.within.tolist(), strict=True):
        shares[group.role] += share
    largest = sorted(shares.items(), key=lambda item: -abs(item[1]))
    return ", ".join(f"{_IN_WORDS[role]} {_percent(share)}" for role, share in largest)


def _by_block(parts: GapParts) -> str:
    start, end, share = _shortest_run(parts)
    first, last = parts.blocks[start], parts.blocks[end - 1]
    if parts.between is None:
        span = first if first == last else f"{first} to {last}"
        return f"{_percent(share)} of it is owed to {span}, interaction split evenly."
    if first == last:
        return f"{_percent(share)} of it arises inside {first}."
    among = share - parts.between.diagonal()[start:end].sum().item()
    return (
        f"{_percent(share)} of it arises inside {first} to {last}, "
        f"{_percent(among)} between different blocks of them."
    )


def _shortest_run(parts: GapParts) -> tuple[int, int, float]:
    """First and last-plus-one block of the shortest run with half, and what it has."""
    count = len(parts.blocks)
    runs = combinations(range(count + 1), 2)
    for start, end in sorted(runs, key=lambda run: run[1] - run[0]):
        share = _share(parts, start, end)
        if share >= _HALF or end - start == count:
            break
    return start, end, share


def _share(parts: GapParts, start: int, end: int) -> float:
    if parts.between is not None:
        among: float = parts.between[start:end, start:end].sum().item()
        return among
    inside = set(parts.blocks[start:end])
    pairs = zip(parts.groups, parts.shares.tolist(), strict=True)
    return math.fsum(share for group, share in pairs if group.block in inside)


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")

"""Short names for layers: what tells them apart, without what they share."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress


@dataclass(frozen=True)
class LayerNames:
    """`short` by full name, and the patterns whose stars the short names fill.

    "encoder.0.fc1" and "encoder.1.fc1" are "0" and "1", of "encoder.*.fc1".
    """

    short: Mapping[str, str]
    patterns: tuple[str, ...]


def layer_names(names: Sequence[str]) -> LayerNames:
    """Leave out what all names with as many parts share.

    A name with a number of parts of its own stays whole, and so do all where the
    short ones would be ambiguous.
    """
    by_length: defaultdict[int, list[str]] = defaultdict(list)
    for name in names:
        by_length[name.count(".")].append(name)
    short: dict[str, str] = {}
    patterns: list[str] = []
    for alike in by_length.values():
        pattern, kept = _shortened(alike)
        short.update(zip(alike, kept, strict=True))
        if set(pattern) != {"*"}:
            patterns.append(".".join(pattern))
    if len(set(short.values())) < len(names):
        return LayerNames({name: name for name in names}, ())
    return LayerNames({name: short[name] for name in names}, tuple(patterns))


def _shortened(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The parts that all names share, stars elsewhere; each name's parts elsewhere."""
    split = [name.split(".") for name in names]
    columns = zip(*split, strict=True)
    differ = [len(names) == 1 or len(set(column)) > 1 for column in columns]
    pattern = ["*" if d else part for part, d in zip(split[0], differ, strict=True)]
    kept = [".".join(compress(parts, differ)) for parts in split]
    return pattern, kept

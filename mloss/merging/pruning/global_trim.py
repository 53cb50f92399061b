"""Trimming with one budget for each tensor, or with one for the whole model."""

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal

from torch import Tensor

from mloss.merging.pruning.cut import NOTHING, Cut, cuts_of_differences
from mloss.merging.pruning.keep_rates import check_rates
from mloss.merging.pruning.kth_largest import kth_largest
from mloss.merging.pruning.trim import kept_count
from mloss.states import State, mergeable

Trimming = Literal["tensor", "model"]

_EVERYTHING = Cut(0.0, last=sys.maxsize)

# The key of an entry in; where to cut it in every source's vector.
Cuts = Callable[[str], Sequence[Cut]]


def cuts_by_entry(
    base: State,
    sources: Sequence[State],
    *,
    density: float,
    trimming: Trimming,
    apart: Collection[str] = (),
) -> Cuts:
    """Where to cut the entries of task vectors so that `density` of each vector stays.

    With "tensor" every entry has its own budget, rounded as `trim_rows` does. With
    "model" all entries of a task vector, but those `apart`, have one together; beside
    the smallest number that stays all others of its size stay too, wherever they are:
    in coarse numbers (bfloat16) that can be many. It is found at once, and exactly, by
    going through the models a few times, one entry at a time. Raises ValueError for a
    density outside [0, 1] and another `trimming`.
    """
    check_rates(density)
    check_trimming(trimming)
    if density == 1:
        return lambda _: [_EVERYTHING] * len(sources)

    def of_entry(key: str) -> Sequence[Cut]:
        count = kept_count(density, base[key].numel())
        return cuts_of_differences(base[key], [s[key] for s in sources], count=count)

    if trimming == "tensor":
        return of_entry
    sizes = entry_sizes(base)
    kept = {key: size for key, size in sizes.items() if key not in apart}
    cuts = _cuts_of_models(base, sources, sizes=kept, density=density)
    return lambda _: cuts


def check_trimming(trimming: Trimming) -> None:
    """Raise ValueError for anything but "tensor" and "model"."""
    if trimming not in ("tensor", "model"):
        raise ValueError(f"trimming must be 'tensor' or 'model', got {trimming!r}")


def entry_sizes(state: State) -> dict[str, int]:
    """How many numbers each entry that can be merged holds, by its key."""
    entries = ((key, state[key]) for key in state)
    return {key: value.numel() for key, value in entries if mergeable(value)}


def _cuts_of_models(
    base: State, sources: Sequence[State], *, sizes: dict[str, int], density: float
) -> list[Cut]:
    def rows() -> Iterator[tuple[int, Tensor]]:
        for key in sizes:
            origin = base[key].double()
            for index, source in enumerate(sources):
                yield index, (source[key].double() - origin).abs_()

    total = sum(sizes.values())
    count = kept_count(density, total)
    if count == 0:
        return [NOTHING] * len(sources)
    least = kth_largest(rows, [count] * len(sources), size=total)
    return [Cut(size, last=sys.maxsize) for size in least.tolist()]

"""The k-th largest of numbers that are never in memory at once, exactly."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Each call goes through all numbers once more: pieces of rows, with the row's index.
Rows = Callable[[], Iterable[tuple[int, Float[Tensor, "*piece"]]]]

# Numbers that may be held at once: 128 MiB of them.
_AT_HAND = 2**24
# Numbers looked at together, and by how many of a number's bits a pass narrows.
_TOGETHER = 2**17
_BITS = 16
_WIDTH = 64


def kth_largest(
    rows: Rows, counts: Sequence[int], *, size: int
) -> Float[Tensor, " row"]:
    """For every row of `size` numbers, the counts[row]-th largest of them.

    Infinity where that count is 0. Every pass over the rows counts how many numbers
    begin with which bits, float64 being read as integers of the same order, and the
    next looks only where the wanted one is, until what is left can be held: one pass
    for 16 million numbers, two for some 800 million that are spread like a normal law,
    five at most.
    """
    assert all(0 <= count <= size for count in counts)
    if not any(counts):
        return torch.full((len(counts),), torch.inf, dtype=torch.float64)
    low = -(2 ** (_WIDTH - 1))
    ranges = [_Range(low, _WIDTH, max(count, 1), size) for count in counts]
    while ranges[0].bits > 0 and sum(each.inside for each in ranges) > _AT_HAND:
        ranges = _narrowed(rows, ranges)
    if ranges[0].bits > 0:
        found = _selected(rows, ranges)
    else:
        found = torch.tensor([each.low for each in ranges])
    none_asked = torch.tensor([count == 0 for count in counts])
    return _as_floats(found).masked_fill(none_asked, torch.inf)


@dataclass(frozen=True)
class _Range:
    """The integers from low to low + 2**bits - 1, and how many of a row are there.

    The wanted one is the count-th largest of those inside.
    """

    low: int
    bits: int
    count: int
    inside: int

    @property
    def bits_of_part(self) -> int:
        return max(self.bits - _BITS, 0)

    def of(self, numbers: Int[Tensor, " some"]) -> Int[Tensor, " fewer"]:
        if self.bits == _WIDTH:
            return numbers
        high = self.low + 2**self.bits - 1
        return numbers[(numbers >= self.low) & (numbers <= high)]

    def histogram(self, numbers: Int[Tensor, " some"]) -> Int[Tensor, " part"]:
        shift = self.bits_of_part
        parts = (self.of(numbers) >> shift) - (self.low >> shift)
        return torch.bincount(parts, minlength=2**_BITS)

    def narrowed(self, histogram: Int[Tensor, " part"]) -> "_Range":
        """The part of it that holds the wanted one."""
        from_above = histogram.flip(0).cumsum(0)
        place = int(torch.searchsorted(from_above, self.count))
        part = len(histogram) - 1 - place
        inside = int(histogram[part])
        above = int(from_above[place]) - inside
        return _Range(
            low=self.low + (part << self.bits_of_part),
            bits=self.bits_of_part,
            count=self.count - above,
            inside=inside,
        )


def _narrowed(rows: Rows, ranges: Sequence[_Range]) -> list[_Range]:
    histograms = [torch.zeros(2**_BITS, dtype=torch.int64) for _ in ranges]
    for row, numbers in _read(rows):
        histograms[row] += ranges[row].histogram(numbers)
    return [each.narrowed(h) for each, h in zip(ranges, histograms, strict=True)]


def _selected(rows: Rows, ranges: Sequence[_Range]) -> Int[Tensor, " row"]:
    """The wanted integer of each row, from all that are in its range."""
    held: list[list[Tensor]] = [[] for _ in ranges]
    for row, numbers in _read(rows):
        held[row].append(ranges[row].of(numbers))
    return torch.stack(
        [
            torch.cat(some).kthvalue(each.inside - each.count + 1).values
            for some, each in zip(held, ranges, strict=True)
        ]
    )


def _read(rows: Rows) -> Iterator[tuple[int, Int[Tensor, " some"]]]:
    for row, piece in rows():
        flat = piece.reshape(-1)
        for start in range(0, len(flat), _TOGETHER):
            numbers = flat[start : start + _TOGETHER]
            yield row, _as_integers(numbers.double().cpu())


def _as_integers(numbers: Float[Tensor, " some"]) -> Int[Tensor, " some"]:
    """Integers in the order of these numbers: their bits, reversed below zero."""
    return _reversed_below_zero(numbers.view(torch.int64))


def _as_floats(integers: Int[Tensor, " some"]) -> Float[Tensor, " some"]:
    """The numbers of which `_as_integers` makes these."""
    return _reversed_below_zero(integers).view(torch.float64)


def _reversed_below_zero(bits: Int[Tensor, " some"]) -> Int[Tensor, " some"]:
    changed: Tensor = bits ^ ((bits >> (_WIDTH - 1)) & (2 ** (_WIDTH - 1) - 1))
    return changed

"""Where to cut a task vector so that a given number of its largest entries stay."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import hardshrink

from mloss.tiles import by_tiles

# Sizes that show, roughly, where the cut will be.
_SAMPLE = 2**14
# Of more values than these one vector at a time is looked at.
_LARGE = 2**26

Sizes = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Cut:
    """Of a vector all entries larger than `size` stay, and those of it up to `last`.

    `size` is the absolute value of the smallest entry that stays; of the entries of
    that very size the earlier ones stay, the one at position `last` being the last.
    """

    size: float
    last: int


NOTHING = Cut(math.inf, -1)


def trimmed(
    vector: Float[Tensor, " value"], cut: Cut, *, start: int = 0
) -> Float[Tensor, " value"]:
    """A piece of the vector, from position `start` on, with zeros for what goes."""
    just_below = math.nextafter(cut.size, 0)
    last = cut.last + 1 - start
    if last <= 0:
        return hardshrink(vector, cut.size)
    if last >= len(vector):
        return hardshrink(vector, just_below)
    earlier = hardshrink(vector[:last], just_below)
    return torch.cat([earlier, hardshrink(vector[last:], cut.size)])


def cut(sizes: Sizes, count: int) -> Cut:
    """The cut that leaves `count` entries of a vector, given their sizes.

    Found by selection, without sorting.
    """
    if count == 0:
        return NOTHING
    size, staying = _smallest(sizes, count)
    return Cut(size, int(np.flatnonzero(sizes == size)[staying - 1]))


def _smallest(sizes: Sizes, count: int) -> tuple[float, int]:
    """The smallest of the `count` largest sizes, and how many of them are that size."""
    near, larger = _near_the_cut(sizes, count)
    first = len(near) - (count - larger)
    largest = np.partition(near, first)[first:]
    return float(largest[0]), len(largest) - int(np.count_nonzero(largest > largest[0]))


def _near_the_cut(sizes: Sizes, count: int) -> tuple[Sizes, int]:
    """A few sizes, the wanted one among them, and how many of all are larger.

    What a sample says of the size at the cut bounds it, four standard errors to either
    side; where it lies beyond, and for few sizes, these are all of them.
    """
    step = len(sizes) // _SAMPLE
    if step > 1:
        sample = np.sort(sizes[::step])
        share = 1 - count / len(sizes)
        middle = share * len(sample)
        error = 4 * math.sqrt(len(sample) * share * (1 - share)) + 1
        low = sample[max(math.floor(middle - error), 0)]
        high = sample[min(math.ceil(middle + error), len(sample) - 1)]
        larger = int(np.count_nonzero(sizes > high))
        near = sizes[(sizes >= low) & (sizes <= high)]
        if larger < count <= larger + len(near):
            return near, larger
    return sizes, 0


def cuts_of_differences(
    origin: Float[Tensor, "*shape"],
    values: Sequence[Float[Tensor, "*shape"]],
    *,
    count: int,
) -> list[Cut]:
    """The cut of each value - origin, in float64, that leaves `count` entries.

    Differences of float32 and less are told apart in float32 first, since rounding
    keeps the order of sizes, and in float64 where that makes them equal. As many
    vectors are in memory as there are threads, and one where they are large.
    """
    threads = torch.get_num_threads() if origin.numel() < _LARGE else 1
    start, each = origin.reshape(-1), [value.reshape(-1) for value in values]
    found: list[Cut] = []
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(each), threads):
            some = each[first : first + threads]
            sizes = [_rounded_sizes(start, value) for value in some]
            found += pool.map(partial(_exact_cut, start, count=count), some, sizes)
    return found


def _rounded_sizes(origin: Tensor, value: Tensor) -> Tensor:
    dtype = torch.promote_types(origin.dtype, torch.float32)
    return by_tiles(
        origin,
        lambda part: (value[part].to(dtype) - origin[part].to(dtype)).abs_(),
        dtype=dtype,
    )


def _exact_cut(origin: Tensor, value: Tensor, sizes: Tensor, *, count: int) -> Cut:
    if count == 0:
        return NOTHING
    rounded = sizes.cpu().numpy()
    size, staying = _smallest(rounded, count)
    of_that_size = np.flatnonzero(rounded == size)
    alike = torch.from_numpy(of_that_size).to(origin.device)
    exact = (value[alike].double() - origin[alike].double()).abs()
    among_them = cut(exact.cpu().numpy(), staying)
    return Cut(among_them.size, int(of_that_size[among_them.last]))

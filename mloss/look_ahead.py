"""Results in their order, the next of which are computed while one is used."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from mloss.side_by_side import alone

Given = TypeVar("Given")
Made = TypeVar("Made")

# Values under way at a time: a few layers of a common transformer.
_UNDER_WAY = 2**24


def look_ahead(
    function: Callable[[Given], Made],
    things: Sequence[Given],
    *,
    size: Callable[[Given], int],
) -> Iterator[Made]:
    """Call a function on one thing after the other, several at a time.

    As many threads as torch has are at work, each with one thread of torch's, on
    things of at most 2**24 values together by their `size`. A larger thing is worked
    on by itself in the calling thread. What a call raises is raised when its turn
    comes; calls not begun then are never made.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield from map(function, things)
        return
    pool = ThreadPoolExecutor(threads, initializer=alone)
    try:
        yield from _ahead(pool, function, things, size, threads=threads)
    finally:
        pool.shutdown(cancel_futures=True)
        # Else threads that are yet to come would have one too.
        torch.set_num_threads(threads)


def _ahead(
    pool: ThreadPoolExecutor,
    function: Callable[[Given], Made],
    things: Sequence[Given],
    size: Callable[[Given], int],
    *,
    threads: int,
) -> Iterator[Made]:
    waiting = deque(things)
    begun: deque[tuple[Future[Made], int]] = deque()
    while waiting or begun:
        held = sum(values for _, values in begun)
        # One more than there are threads, so that none waits while one is used.
        while waiting and len(begun) <= threads:
            values = size(waiting[0])
            if held + values > _UNDER_WAY:
                break
            begun.append((pool.submit(function, waiting.popleft()), values))
            held += values
        if begun:
            first, _ = begun.popleft()
            yield first.result()
        else:
            yield function(waiting.popleft())

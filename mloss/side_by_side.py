"""Calls on small tensors, several at a time, each with one thread to itself."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch

Given = TypeVar("Given")
Made = TypeVar("Made")


class Each(Protocol):
    """What `map` does: calls a function on one thing after the other."""

    def __call__(
        self, function: Callable[[Given], Made], things: Iterable[Given], /
    ) -> Iterable[Made]:
        """Return the results in the order of the things."""


@contextmanager
def side_by_side() -> Iterator[Each]:
    """A `map` that makes calls on as many threads as torch has, results in order.

    For tensors that a cache holds: shared out among threads, every operation on one
    would be a start and a wait. Within a call torch has one thread and takes no
    gradients, so that what it returns does not depend on the number of threads.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield map
        return
    try:
        with ThreadPoolExecutor(threads, initializer=alone) as pool:
            yield pool.map
    finally:
        # Else threads that are yet to come would have one too.
        torch.set_num_threads(threads)


def alone() -> None:
    """Give torch one thread in the calling thread, and let it take no gradients."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)  # torch's own signature

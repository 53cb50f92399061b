"""Numbers that do not depend on how many threads torch may use."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch

# The number of threads is one for the whole process, so one holder at a time.
_lock = RLock()


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread, so that its sums and LAPACK keep to one order.

    With more, a long sum or a singular vector has other last bits on another number of
    cores. May be nested; other threads that want the same wait.
    """
    with _lock:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

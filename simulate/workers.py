"""Calls spread over processes of this machine or over a Dask cluster."""

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import joblib

from simulate.laws import positive_integer

PATIENCE = 5.0  # seconds for the cluster to answer, and again for a first worker
_ADDRESS = re.compile(r"((tcp|tls)://)?[^\s/:]+:\d+|((tcp|tls)://)?\[[^\s\]]+\]:\d+")


@contextmanager
def completed(
    calls: Iterable[Any], *, workers: int, cluster: str | None
) -> Iterator[Iterator[Any]]:
    """The results of joblib's delayed calls, each as soon as it is there.

    `workers` processes of one thread each, -1 for one on every core; or those of the
    Dask cluster whose scheduler is at `cluster`. Leaving the block gives up the rest.
    Raises ValueError for another number of workers and where `cluster` is not an
    address, ImportError without Dask, OSError where no scheduler or worker answers.
    """
    if workers != -1:
        positive_integer("workers", workers)
    with _backend(workers, cluster) as backend:
        with joblib.parallel_config(**backend):
            parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1)
        results = parallel(calls)
        try:
            yield results
        finally:
            with warnings.catch_warnings():
                # joblib warns of results that nobody took: leaving early means it.
                warnings.simplefilter("ignore", UserWarning)
                results.close()


@contextmanager
def _backend(workers: int, cluster: str | None) -> Iterator[dict[str, Any]]:
    if cluster is None:
        yield {"backend": "loky", "n_jobs": workers, "inner_max_num_threads": 1}
        return
    with _connected(cluster) as client:
        yield {"backend": "dask", "client": client}


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError:
        raise ImportError(
            "cluster needs Dask, which is not installed: pip install 'mloss[cluster]'"
        ) from None
    if not _ADDRESS.fullmatch(address):
        raise ValueError(
            f"cluster must be the address of a Dask scheduler, HOST:PORT or "
            f"tcp://HOST:PORT, got {address!r}"
        )
    try:
        client = Client(  # type: ignore[no-untyped-call]  # has no annotations
            address, timeout=PATIENCE, set_as_default=False
        )
    except OSError:
        raise ConnectionError(
            f"cluster: no Dask scheduler answers at {address} within {PATIENCE:g} s"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError:
            raise ConnectionError(
                f"cluster: the scheduler at {address} has no worker after "
                f"{PATIENCE:g} s; start one with: dask worker {address}"
            ) from None
        yield client

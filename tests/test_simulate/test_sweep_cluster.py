"""Sweeps on a Dask cluster whose scheduler and workers are other processes."""

import os
import sys
import time
from dataclasses import replace
from importlib import import_module

import numpy as np
import pyarrow.parquet as pq
import pytest
from distributed import LocalCluster, get_worker

from simulate import workers
from simulate.cells import Cell
from simulate.provenance import versions
from simulate.results_file import journal_path
from simulate.settings import Settings
from simulate.sweep import sweep

NOWHERE = "tcp://127.0.0.1:9"  # the port of the discard service, which none runs


def small(**options):
    settings = {"n": 2**16, "method": "mc", "rtol": 0.05, "qs": [2, 3], **options}
    activations = settings.pop("activations", ["relu", "gelu"])
    rng = np.random.default_rng(0)
    return sweep(activations, [0.5, 1, 2], [0.1, 1.0], rng=rng, **settings)


def numbers(table):
    return table.drop_columns(["seconds", "finished"]).to_pylist()


@pytest.fixture(scope="module")
def cluster():
    """The address of a scheduler with two workers, a process each."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    ) as running:
        yield running.scheduler_address


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(workers, "PATIENCE", 0.5)


def test_a_cluster_gives_the_numbers_that_one_process_gives(cluster, tmp_path):
    out = tmp_path / "sweep.parquet"
    seen = []
    table = small(cluster=cluster, out=out, progress=lambda *at: seen.append(at))
    assert numbers(table) == numbers(small(workers=1))
    assert seen == [(done, 24) for done in range(25)]
    assert pq.read_table(out).equals(table)
    assert not journal_path(out).exists()


def test_the_cells_are_computed_by_the_clusters_workers(cluster):
    here = os.getpid()

    def relu_elsewhere(x):
        assert os.getpid() != here
        assert get_worker().address.startswith("tcp://")
        return np.maximum(x, 0)

    table = small(activations={"relu": relu_elsewhere}, cluster=cluster)
    assert numbers(table) == numbers(small(activations=["relu"], workers=1))


def test_a_sweep_begun_on_a_cluster_goes_on_here(cluster, tmp_path):
    class Stopped(Exception):  # noqa: N818 - stands for a kill, and is no error
        pass

    def stop(done, total):
        if 0 < done < total:
            raise Stopped

    out = tmp_path / "sweep.parquet"
    with pytest.raises(Stopped):
        small(cluster=cluster, out=out, progress=stop)
    assert journal_path(out).exists()
    assert numbers(small(out=out, workers=1)) == numbers(small(workers=1))


def test_a_failing_cell_raises_its_own_error(cluster):
    def broken(_):
        raise ZeroDivisionError("of this very activation")

    with pytest.raises(ZeroDivisionError, match="of this very activation"):
        small(activations={"broken": broken}, cluster=cluster)


@pytest.mark.usefixtures("impatient")
def test_an_unreachable_cluster_is_one_clear_error(tmp_path):
    start = time.monotonic()
    with pytest.raises(
        ConnectionError, match=f"no Dask scheduler answers at {NOWHERE}"
    ):
        small(cluster=NOWHERE, out=tmp_path / "sweep.parquet")
    assert time.monotonic() - start < 20
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("impatient")
def test_a_cluster_without_workers_is_one_clear_error():
    with (
        LocalCluster(n_workers=0, dashboard_address=":0") as empty,
        pytest.raises(ConnectionError, match=r"has no worker after 0\.5 s; start"),
    ):
        small(cluster=empty.scheduler_address)


@pytest.mark.parametrize("address", ["", "somewhere", "http://host:80", "tcp://host"])
def test_what_is_not_an_address_is_refused(address):
    with pytest.raises(ValueError, match="cluster must be the address of a Dask"):
        small(cluster=address)


def test_without_dask_the_extra_to_install_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"pip install 'mloss\[cluster\]'"):
        small(cluster=NOWHERE)


def test_a_worker_with_other_versions_is_refused():
    here = Settings("00", "mc", 100, None, versions())
    elsewhere = replace(here, versions=versions() | {"numpy": "1.0"})
    computed = import_module("simulate.sweep")._computed
    cell = Cell("relu", 1.0, 1.0, 2)
    assert computed(cell, "relu", here).n == 100
    with pytest.raises(
        ValueError, match=r"a worker has numpy .* where the sweep has 1\.0$"
    ):
        computed(cell, "relu", elsewhere)

"""Expected M-Loss over a grid of activations, k, sigma and numbers of models.

Every cell has a random stream of its own, so that its numbers depend on nothing but
the seed, the settings and its own parameters: not on the other cells, on the workers
or on how often the sweep was stopped and resumed.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path

import joblib
import numpy as np
import pyarrow as pa

from simulate.activations import Activation, resolve
from simulate.cells import Cell, Row, finished_cell
from simulate.inputs import positive
from simulate.laws import positive_integer
from simulate.provenance import Run, versions
from simulate.results_file import complete, prepared, recorded, stored
from simulate.settings import Settings
from simulate.workers import completed


def sweep(
    activations: Sequence[str] | Mapping[str, Activation],
    ks: Iterable[float],
    sigmas: Iterable[float],
    *,
    qs: Iterable[int] = (2,),
    n: int,
    rng: np.random.Generator,
    rtol: float | None = None,
    method: str = "qmc",
    out: str | os.PathLike[str] | None = None,
    workers: int = -1,
    cluster: str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> pa.Table:
    """E[D] in every cell of activations x ks x sigmas x qs, a row each in that order.

    `activations` are names, or functions by the names that their rows shall have. With
    `rtol` a cell stops once stderr/value <= rtol (`simulate.cells.finished_cell` says
    how, and the column `reached` whether it did); n is the largest number of samples
    that a round may take, and without `rtol` the only one.

    `out` names a Parquet file of the rows and their provenance. Until it is complete
    the finished cells stand in a journal beside it, and a run that was stopped goes on
    from there; a complete file is extended by the cells it lacks, and keeps the others
    it has. The generator must be in the same state each time.

    `workers` is a number of processes, -1 for all cores; `cluster` is the address of a
    Dask scheduler whose workers take over instead. `progress` is called with the
    numbers of finished cells and of all.

    Raises ValueError or TypeError naming the argument that is at fault, ValueError for
    a file of other settings or versions, ImportError for a cluster without Dask, and
    OSError where a file cannot be written or no cluster answers.
    """
    functions = _functions(activations)
    cells = _cells(functions, ks, sigmas, qs)
    settings = _settings(rng, n=n, rtol=rtol, method=method)
    path = None if out is None else prepared(Path(out))
    results = stored(path, settings)
    missing = [cell for cell in cells if cell not in results.rows]
    note = progress or _unnoted
    note(done := len(cells) - len(missing), len(cells))
    if missing:
        run = Run.now(cluster or f"{workers} local")
        results.runs.append(run)
        calls = [
            joblib.delayed(_computed)(cell, functions[cell.activation], settings)
            for cell in missing
        ]
        with (
            completed(calls, workers=workers, cluster=cluster) as rows,
            recorded(path, settings, run) as record,
        ):
            for row in rows:
                record(row)
                results.rows[row.cell] = row
                note(done := done + 1, len(cells))
    complete(path, results, cells, settings)
    return results.table(settings, cells)


def _computed(cell: Cell, f: str | Activation, settings: Settings) -> Row:
    """What a worker does, unless its versions are not those of the sweep."""
    differing = [
        f"{name} {versions()[name]} where the sweep has {wanted}"
        for name, wanted in settings.versions.items()
        if versions()[name] != wanted
    ]
    if differing:
        raise ValueError(f"cluster: a worker has {', '.join(differing)}")
    return finished_cell(cell, f, settings)


def _functions(
    activations: Sequence[str] | Mapping[str, Activation],
) -> Mapping[str, str | Activation]:
    if isinstance(activations, Mapping):
        return {name: resolve(f) for name, f in activations.items()}
    if isinstance(activations, str) or not all(isinstance(a, str) for a in activations):
        raise TypeError(
            "activations must be a sequence of names, or a mapping from names to "
            f"functions, got {activations!r}"
        )
    for name in activations:
        resolve(name)
    return {name: name for name in activations}


def _cells(
    activations: Iterable[str],
    ks: Iterable[float],
    sigmas: Iterable[float],
    qs: Iterable[int],
) -> list[Cell]:
    """Every combination once, the last axis fastest."""
    names = list(activations)
    k_axis = [positive("ks", k) for k in ks]
    sigma_axis = [positive("sigmas", sigma) for sigma in sigmas]
    q_axis = [positive_integer("qs", q) for q in qs]
    grid = [Cell(*at) for at in product(names, k_axis, sigma_axis, q_axis)]
    if not grid:
        raise ValueError("activations, ks, sigmas and qs must each name at least one")
    return list(dict.fromkeys(grid))


def _settings(
    rng: np.random.Generator, *, n: int, rtol: float | None, method: str
) -> Settings:
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator, got {rng!r}")
    return Settings(
        seed=rng.bytes(16).hex(),
        method=method,
        n=positive_integer("n", n, least=2),
        rtol=None if rtol is None else positive("rtol", rtol),
        versions=versions(),
    )


def _unnoted(done: int, total: int) -> None:
    """No progress is shown."""

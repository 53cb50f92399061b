"""How much faster two workers are than one, and what the sweep itself costs.

    python benchmarks/sweep.py

One worker and two take turns, several times over, on a grid whose cells take tenths
of a second; the ratio of the medians is what two workers gain. The overhead is that of
cells that take next to nothing. Run it on an idle machine of two cores or more.
"""

import json
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

from simulate.sweep import sweep

RUNS = 5
RATIOS = np.geomspace(0.5, 50, 16)
SAMPLES = 2**22
RESULTS = Path(__file__).parent / "results" / "sweep.json"


def seconds(*, workers: int, n: int) -> float:
    """Wall time of one sweep into a file, plain Monte Carlo without a tolerance."""
    with TemporaryDirectory() as scratch:
        start = perf_counter()
        sweep(
            ["relu", "gelu"],
            RATIOS,
            [1.0],
            n=n,
            rng=np.random.default_rng(0),
            method="mc",
            workers=workers,
            out=Path(scratch) / "sweep.parquet",
        )
        return perf_counter() - start


def main() -> None:
    for workers in (1, 2):
        seconds(workers=workers, n=1000)  # starts the processes
    full, empty = {1: [], 2: []}, {1: [], 2: []}
    for _ in range(RUNS):
        for workers in (1, 2):
            full[workers].append(seconds(workers=workers, n=SAMPLES))
            empty[workers].append(seconds(workers=workers, n=1000))
    cells = 2 * len(RATIOS)
    found = {
        "one worker, s": median(full[1]),
        "two workers, s": median(full[2]),
        "gain of two workers": median(full[1]) / median(full[2]),
        "overhead a cell, one worker, ms": 1e3 * median(empty[1]) / cells,
        "overhead a cell, two workers, ms": 1e3 * median(empty[2]) / cells,
    }
    for label, value in found.items():
        print(f"{label:34} {value:.3g}")
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

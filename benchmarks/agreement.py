"""Simulation against theory in every cell of the full grid.

    python benchmarks/agreement.py [--out FILE] [--cluster ADDRESS]

The paper's activations, k/sigma from 0.5 to 1e6 and two, three and eight models,
simulated from the definition to 1e-3 relative. Each estimate is held against theory's
value by its own Student's t; theory's error, where it samples too, is added to the
standard error. Prints the table of docs/simulation.md and stores every cell. A run
that was stopped goes on from FILE; where the code has changed since, remove it first.
"""

import argparse
import json
from math import hypot
from pathlib import Path
from time import perf_counter

import numpy as np
from scipy.stats import t as student

from simulate.progress_bar import progress_bar
from simulate.sweep import sweep
from theory import estimated_mloss

ACTIVATIONS = ("relu", "leaky_relu", "gelu")
RATIOS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 1e2, 1e3, 1e4, 1e5, 1e6)
MODELS = (2, 3, 8)
RTOL = 1e-3
THEORY_RTOL = 3e-4  # of three standard errors, where theory samples too
SAMPLES = 2**22
RESULTS = Path(__file__).parent / "results" / "agreement.json"


def compared(row: dict[str, object]) -> dict[str, object]:
    """A cell with theory's value and error, and how far apart the two are.

    `off` is in standard errors and `chance` that of being off by as much or more.
    """
    claim = estimated_mloss(
        row["activation"], row["k"], row["sigma"], q=row["q"], rtol=THEORY_RTOL
    )
    value, error = float(claim.value), float(claim.error)
    off = (row["value"] - value) / hypot(row["stderr"], error / 3)
    kept = ("activation", "k", "q", "value", "stderr", "degrees", "n", "drawn")
    return {name: row[name] for name in kept} | {
        "theory": value,
        "theory_error": error,
        "off": off,
        "chance": 2 * float(student.sf(abs(off), row["degrees"])),
    }


def markdown(cells: list[dict[str, object]]) -> str:
    """Standard errors between simulation and theory: a row for each k/sigma."""
    off = {(cell["activation"], cell["q"], cell["k"]): cell["off"] for cell in cells}
    columns = [(name, q) for name in ACTIVATIONS for q in MODELS]
    lines = [
        "| k/sigma | " + " | ".join(f"{name}, {q}" for name, q in columns) + " |",
        "| ---: " * (len(columns) + 1) + "|",
    ]
    for ratio in RATIOS:
        found = [f"{off[*column, ratio]:+.1f}" for column in columns]
        lines.append(f"| {ratio:g} | " + " | ".join(found) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/agreement.parquet"))
    parser.add_argument("--cluster", metavar="ADDRESS", help="a Dask scheduler")
    options = parser.parse_args()
    start = perf_counter()
    with progress_bar("cells") as progress:
        table = sweep(
            ACTIVATIONS,
            RATIOS,
            [1.0],
            qs=MODELS,
            n=SAMPLES,
            rng=np.random.default_rng(0),
            rtol=RTOL,
            out=options.out,
            cluster=options.cluster,
            progress=progress,
        )
    seconds = perf_counter() - start
    cells = [compared(row) for row in table.to_pylist()]
    summary = {
        "cells": len(cells),
        "cells short of 1e-3": table["reached"].to_pylist().count(False),
        "largest relative standard error": max(c["stderr"] / c["value"] for c in cells),
        "largest |off|": max(abs(c["off"]) for c in cells),
        "least chance": min(c["chance"] for c in cells),
        "cells whose 95 % interval misses": sum(c["chance"] < 0.05 for c in cells),
        "samples": sum(c["drawn"] for c in cells),
        "seconds of workers": sum(table["seconds"].to_pylist()),
        "seconds": seconds,
    }
    print(markdown(cells), "", sep="\n")
    for label, value in summary.items():
        print(f"{label:34} {value:.4g}")
    results = json.dumps({"summary": summary, "cells": cells}, indent=1)
    RESULTS.write_text(results + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

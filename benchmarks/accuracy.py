"""The expectation by four routes at random parameters, and how far they are apart.

    python -m benchmarks.accuracy

Writes benchmarks/results/accuracy.json, one row a parameter set, and docs/accuracy.md.
About ten minutes on two idle cores; an interrupted run goes on where it stopped.
"""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from itertools import islice, takewhile
from operator import attrgetter
from pathlib import Path

from scipy.special import stdtr

from benchmarks.four_routes import SAMPLES, Row, measured, points

COUNT = 240
RESULTS = Path(__file__).parent / "results" / "accuracy.json"
PAGE = Path(__file__).parent.parent / "docs" / "accuracy.md"
PAIRS = (("exact", "certified"), ("exact", "definition"), ("definition", "certified"))
# Of |z| > 3 for a right value: a standard error has 15 degrees of freedom or more.
CHANCE = 2 * float(stdtr(15, -3))
TEXT = """# How exact the expectation is

The expected node M-Loss of two models (paper, Section 4) by four routes at {count}
random parameter sets: the activations in turn, k/sigma log-uniform from 0.1 to 1e8
with both ends included, sigma log-uniform from 0.001 to 100.

- *exact*: `theory.expected_mloss` in float64, which promises 1e-10, and 1e-12 for ReLU
  and Leaky ReLU.
- *certified*: the middle of `theory.certified_mloss(..., rtol=1e-12)`, proved bounds
  in ball arithmetic.
- *definition*: a double Gauss-Legendre sum of the definition in 50-digit arithmetic
  (mpmath), sharing no formula with the theory.
- *simulated*: `simulate.estimate_mloss(..., method="qmc")` with {samples} samples; its
  standard error is {finest:.0e} to {coarsest:.0e} of the value.

Below are the largest relative difference between two routes, the largest relative
width of an enclosure, how many exact values lie inside the enclosure widened by 1e-10
({inside} of {count}), and how many simulated values are more than three standard
errors off ({noisy} of {count}, the furthest {furthest:.1f}; up to {expected:.1f} are
expected by chance).

{activations}

{decades}

Made by `python -m benchmarks.accuracy`; every row is in
`benchmarks/results/accuracy.json`.
"""


def page(rows: Sequence[Row]) -> str:
    """The summary as Markdown."""
    relative = [row.stderr / row.exact for row in rows]
    names = groups(rows, lambda row: row.point.activation)
    decades = groups(rows, lambda row: f"1e{row.point.decade}")
    return TEXT.format(
        count=len(rows),
        finest=min(relative),
        coarsest=max(relative),
        inside=inside(rows),
        noisy=noisy(rows),
        furthest=max(abs(row.z) for row in rows),
        samples=f"{SAMPLES:,}",
        expected=len(rows) * CHANCE,
        activations=table("activation", names),
        decades=table("k/sigma from", decades),
    )


def groups(rows: Sequence[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.point.decade):
        found.setdefault(key(row), []).append(row)
    return found


def table(title: str, grouped: dict[str, list[Row]]) -> str:
    """One line a group."""
    head = [title, "sets", *map(" - ".join, PAIRS), "width", "inside", "abs(z) > 3"]
    lines = [head, ["---"] * len(head)]
    for name, rows in grouped.items():
        sizes = [deviation(rows, *pair) for pair in PAIRS]
        sizes.append(max(row.width for row in rows))
        counts = [str(inside(rows)), str(noisy(rows))]
        lines.append([name, str(len(rows)), *(f"{s:.1e}" for s in sizes), *counts])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def deviation(rows: Sequence[Row], one: str, other: str) -> float:
    """The largest relative difference between two routes."""
    value, base = attrgetter(one), attrgetter(other)
    return max(abs(value(row) / base(row) - 1) for row in rows)


def inside(rows: Sequence[Row]) -> int:
    return sum(row.inside for row in rows)


def noisy(rows: Sequence[Row]) -> int:
    return sum(abs(row.z) > 3 for row in rows)


def earlier() -> list[Row]:
    """What an interrupted run has measured of these points."""
    if not RESULTS.exists():
        return []
    rows = map(Row.from_json, json.loads(RESULTS.read_text(encoding="utf-8")))
    pairs = zip(rows, points(), strict=False)
    return [row for row, _ in takewhile(lambda pair: pair[0].point == pair[1], pairs)]


def main() -> None:
    rows = earlier()[:COUNT]
    with ProcessPoolExecutor() as pool:
        for row in pool.map(measured, islice(points(), len(rows), COUNT)):
            rows.append(row)
            replace(RESULTS, json.dumps([asdict(row) for row in rows], indent=1) + "\n")
            print(f"{len(rows)} of {COUNT}", flush=True)
    replace(PAGE, page(rows))


def replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


if __name__ == "__main__":
    main()

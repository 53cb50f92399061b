"""What the estimators cost: beside their random numbers, and to a given error.

    python benchmarks/simulation.py

1. Plain Monte Carlo beside drawing the random numbers alone, taking turns.
2. The time to a relative error of 1e-4. Quasi-Monte Carlo is run until it states
   that error; independent samples would take too long, so their time is that of one
   sample times the number of samples that their variance asks for.
3. Two threads beside one, taking turns.

Medians of several runs. The first two count the processor's time, so that a busy
machine blurs them little; the third needs two idle cores.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import numpy as np

from simulate import estimate_mloss

RUNS, SAMPLES, BLOCK = 5, 4_000_000, 8192
TARGET = 1e-4
ACTIVATIONS, RATIOS = ("relu", "leaky_relu", "gelu"), (10.0, 1000.0)
RESULTS = Path(__file__).parent / "results" / "simulation.json"


def medians(
    *runs: Callable[[], object], clock: Callable[[], float] = process_time
) -> list[float]:
    """Median time of each, the runs taking turns."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(RUNS):
        for each, run in zip(times, runs, strict=True):
            start = clock()
            run()
            each.append(clock() - start)
    return [median(each) for each in times]


def random_numbers() -> None:
    rng = np.random.default_rng(0)
    for _ in range(SAMPLES // BLOCK):
        rng.random(BLOCK)
        rng.standard_normal((2, BLOCK))


def simulated(activation: str, ratio: float, n: int, method: str, **options: int):
    rng = np.random.default_rng(0)
    return estimate_mloss(
        activation, ratio, 1.0, n=n, rng=rng, method=method, **options
    )


def beside_random_numbers() -> dict[str, float]:
    plain = [lambda a=a: simulated(a, 10.0, SAMPLES, "mc") for a in ACTIVATIONS]
    alone, *each = medians(random_numbers, *plain)
    return {a: time / alone for a, time in zip(ACTIVATIONS, each, strict=True)}


def extrapolated(activation: str, ratio: float, method: str, n: int) -> dict:
    """Samples and time that the standard error of n samples asks for."""
    found = simulated(activation, ratio, n, method)
    needed = found.n * (found.stderr / found.value / TARGET) ** 2
    (time,) = medians(lambda: simulated(activation, ratio, SAMPLES, method))
    return {"samples": needed, "seconds": time * needed / SAMPLES}


def reached(activation: str, ratio: float) -> dict:
    """Samples and time where quasi-Monte Carlo arrives, to a quarter."""
    n = 2**12
    while True:
        found = simulated(activation, ratio, n, "qmc")
        if found.stderr <= TARGET * found.value:
            break
        n = n * 5 // 4
    (time,) = medians(lambda: simulated(activation, ratio, n, "qmc"))
    return {"samples": n, "seconds": time}


def to_the_target(activation: str, ratio: float) -> dict[str, dict[str, float]]:
    plain = extrapolated(activation, ratio, "mc", 16 * SAMPLES)
    sharp = reached(activation, ratio)
    return {
        "mc": plain,
        "importance": extrapolated(activation, ratio, "importance", SAMPLES),
        "qmc": sharp,
        "qmc is cheaper": {key: plain[key] / sharp[key] for key in sharp},
    }


def two_threads(activations: Sequence[str] = ACTIVATIONS) -> dict[str, float]:
    found = {}
    for activation in activations:
        one, two = medians(
            lambda a=activation: simulated(a, 10.0, 4 * SAMPLES, "mc"),
            lambda a=activation: simulated(a, 10.0, 4 * SAMPLES, "mc", workers=2),
            clock=perf_counter,
        )
        found[activation] = one / two
    return found


def main() -> None:
    found = {
        "plain over its random numbers": beside_random_numbers(),
        "gain of two threads": two_threads(),
        "to a relative error of 1e-4": {
            f"{activation} at k/sigma = {ratio:g}": to_the_target(activation, ratio)
            for activation in ACTIVATIONS
            for ratio in RATIOS
        },
    }
    print(json.dumps(found, indent=2))
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

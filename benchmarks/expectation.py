"""How long theory and simulation take for 10,000 points, and how exact they are.

    python benchmarks/expectation.py

Medians of five runs in one process; relative errors are against 50-digit arithmetic
for ReLU and against certified values for GELU. Simulation is set beside the time that
drawing its random numbers alone takes.
"""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import mpmath as mp
import numpy as np

from simulate import estimate_mloss
from theory import certified_mloss, expected_mloss

POINTS, SAMPLES, RUNS = 10_000, 4_000_000, 5
RESULTS = Path(__file__).parent / "results" / "expectation.json"


def seconds(run: Callable[[], object]) -> float:
    times = []
    for _ in range(RUNS):
        start = perf_counter()
        run()
        times.append(perf_counter() - start)
    return median(times)


def relu_at_50_digits(k: float, sigma: float) -> float:
    with mp.workdps(50):

        def mean(s):
            inside = (k**2 + s**2) / 2 * mp.erf(k / (s * mp.sqrt(2)))
            return (inside + k * s * mp.npdf(k / s)) / (2 * k)

        k, sigma = mp.mpf(k), mp.mpf(sigma)
        return float(mean(sigma) - mean(sigma / mp.sqrt(2)))


def gelu_certified(k: float, sigma: float) -> float:
    return certified_mloss("gelu", k, sigma, rtol=1e-12).midpoint


def draws(n: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(n // 8192):
        rng.random(8192)
        rng.standard_normal((2, 8192))


def main() -> None:
    rng = np.random.default_rng(0)
    sigma = 10 ** rng.uniform(-3, 2, POINTS)
    k = sigma * 10 ** rng.uniform(-1, 6, POINTS)
    relu = expected_mloss("relu", k, sigma)
    gelu = expected_mloss("gelu", k, sigma)
    exact = [relu_at_50_digits(a, s) for a, s in zip(k[:300], sigma[:300], strict=True)]
    proved = [gelu_certified(a, s) for a, s in zip(k[:100], sigma[:100], strict=True)]
    found = {
        "relu, 10,000 points, s": seconds(lambda: expected_mloss("relu", k, sigma)),
        "relu, largest relative error": float(np.abs(relu[:300] / exact - 1).max()),
        "gelu, 10,000 points, s": seconds(lambda: expected_mloss("gelu", k, sigma)),
        "gelu, largest relative error": float(np.abs(gelu[:100] / proved - 1).max()),
        "silu, 100 points, s": seconds(
            lambda: expected_mloss("silu", k[:100], sigma[:100])
        ),
        "drawing 4 million samples, s": seconds(lambda: draws(SAMPLES)),
    }
    for name in ("relu", "gelu"):
        found[f"simulating {name}, 4 million samples, s"] = seconds(
            lambda name=name: estimate_mloss(
                name, 10.0, 1.0, n=SAMPLES, rng=np.random.default_rng(0)
            )
        )
    for label, value in found.items():
        print(f"{label:45} {value:.3g}")
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""How long a certified value takes, and how narrow it is.

    python benchmarks/certified.py

Medians of three runs, in seconds, with the relative width reached; nothing is asserted.
"""

from itertools import product
from statistics import median
from time import perf_counter

from theory import certified_mloss

ACTIVATIONS = ("relu", "gelu", "quick_gelu", "silu")
RATIOS = (0.5, 5.0, 100.0, 1e4)  # k / sigma
SIGMAS = (1e-3, 0.1, 1.0, 30.0)
TOLERANCES = (1e-8, 1e-12)
RUNS = 3


def timed(activation: str, k: float, sigma: float, rtol: float) -> tuple[float, float]:
    """Median seconds and relative width."""
    times = []
    for _ in range(RUNS):
        start = perf_counter()
        found = certified_mloss(activation, k, sigma, rtol=rtol)
        times.append(perf_counter() - start)
    return median(times), found.width / found.lower


def main() -> None:
    print(
        f"{'activation':<11}{'k/sigma':>9}{'sigma':>9}{'rtol':>9}{'s':>9}{'width':>10}"
    )
    slowest = dict.fromkeys(TOLERANCES, 0.0)
    for activation, rtol, sigma, ratio in product(
        ACTIVATIONS, TOLERANCES, SIGMAS, RATIOS
    ):
        seconds, width = timed(activation, ratio * sigma, sigma, rtol)
        slowest[rtol] = max(slowest[rtol], seconds)
        print(
            f"{activation:<11}{ratio:>9g}{sigma:>9g}{rtol:>9.0e}"
            f"{seconds:>9.3f}{width:>10.1e}"
        )
    for rtol, seconds in slowest.items():
        print(f"slowest at rtol {rtol:.0e}: {seconds:.2f} s")


if __name__ == "__main__":
    main()

"""Other readings of Section 4's set-up, and the constants that each would give."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import pi, sqrt

import numpy as np

from paper_checks.record import Finding, How, Verdict
from paper_checks.registry import claim
from paper_checks.symbolic import relu_rms_constant
from theory import expected_mloss, paper_approximation

# 2k times the density of x at the kink, for k >> sigma: all that E[D] sees of the
# law. U(0, k) has twice the density on half of an even discrepancy.
BASES = {
    "x ~ U(-k, k)": 1.0,
    "x ~ U(0, k)": 1.0,
    "x ~ U(-k/2, k/2)": 2.0,
    "x ~ N(0, k^2)": 2 / sqrt(2 * pi),
}
# Covariance of (a, b) about x, in units of sigma^2.
ERRORS = {
    "a, b independent of sd sigma": [[1.0, 0.0], [0.0, 1.0]],
    "a - b of sd sigma": [[0.5, 0.0], [0.0, 0.5]],
    "b the base model": [[1.0, 0.0], [0.0, 0.0]],
    "a, b mirrored about x": [[1.0, -1.0], [-1.0, 1.0]],
}
DISCREPANCIES = {"D as printed": 1.0, "D = |2f(m) - f(a) - f(b)|": 2.0}
# GELU looks like itself at the first scale and like ReLU at the last.
_RATIO = 10_000.0
_ASYMPTOTIC = 1 / _RATIO  # what a formula for k >> sigma may be off by
SIGMAS = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)


@dataclass(frozen=True)
class Reading:
    """A reading's k E[D] / sigma^2 for k >> sigma: ReLU's, and GELU's over SIGMAS."""

    words: str
    relu: float
    gelu: tuple[float, ...]

    def gives_relu(self) -> bool:
        """Whether ReLU's constant is the printed one within sigma / k."""
        return abs(self.relu / _printed("relu") - 1) <= _ASYMPTOTIC

    def gives_gelu(self) -> bool:
        """Whether GELU's constant is the printed one at every sigma below 1."""
        small = [c for c, sigma in zip(self.gelu, SIGMAS, strict=True) if sigma <= 0.1]
        return all(abs(c / _printed("gelu") - 1) <= _ASYMPTOTIC for c in small)


def readings() -> Iterator[Reading]:
    """Every combination of an error law, a base law and a discrepancy."""
    for errors, cov in ERRORS.items():
        relu = _constant("relu", 1.0, cov)
        gelu = [_constant("gelu", sigma, cov) for sigma in SIGMAS]
        for (base, density), (form, factor) in product(
            BASES.items(), DISCREPANCIES.items()
        ):
            yield Reading(
                f"{base}; {errors}; {form}",
                relu=density * factor * relu,
                gelu=tuple(density * factor * constant for constant in gelu),
            )


@claim(
    "alternative-readings",
    where="Section 4",
    states="Our question: are the printed constants 0.3989 (ReLU) and 0.25 (GELU) "
    "right under some other reading of x, a, b or D?",
    recorded="refuted",
)
def alternative_readings() -> Finding:
    """Compute both constants under every combination of readings we could think of."""
    tried = list(readings())
    both = [r.words for r in tried if r.gives_relu() and r.gives_gelu()]
    only_relu = [r.words for r in tried if r.gives_relu()]
    ratios = np.array([np.array(reading.gelu) / reading.relu for reading in tried])
    rms = relu_rms_constant()
    printed_ratio = _printed("gelu") / _printed("relu")
    return Finding(
        Verdict.CONFIRMED if both else Verdict.REFUTED,
        found=f"{len(tried)} readings tried: both constants in {len(both)}; ReLU's in "
        f"{len(only_relu)} ({'; '.join(only_relu) or 'none'}). GELU over ReLU is "
        f"between {ratios.min():.3f} and {ratios.max():.3f} in all, printed "
        f"{printed_ratio:.3f}. The root mean square of D goes as {rms:.4f} sigma^(3/2) "
        "/ k^(1/2) for ReLU, and with variance sigma E[D] goes as sigma / k",
        uncertainty="1e-10 on the constants; the list of readings is ours",
        how=(How.SYMBOLIC,),
        truth="Under every reading tried GELU's constant is at or above ReLU's for "
        f"k >> 1, so that none can give the printed ratio of {printed_ratio:.3f}.",
        numbers={
            "tried": len(tried),
            "give_both": len(both),
            "give_relu": len(only_relu),
            "gelu_over_relu_min": float(ratios.min()),
            "gelu_over_relu_max": float(ratios.max()),
        },
    )


def _constant(name: str, sigma: float, cov: list[list[float]]) -> float:
    k = sigma * _RATIO
    return float(k * expected_mloss(name, k, sigma, cov=cov) / sigma**2)


def _printed(name: str) -> float:
    return float(paper_approximation(name, 1.0, 1.0))

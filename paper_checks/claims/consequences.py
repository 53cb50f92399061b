"""What Section 4 concludes from its formulas, checked on the exact expectation."""

from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from paper_checks.proved import interval
from paper_checks.record import Finding, How, Verdict
from paper_checks.registry import claim
from paper_checks.symbolic import leaky_relu_is_affine_in_relu
from paper_checks.two_routes import LEAKY_SLOPE, THEORY, simulated
from theory import LeakyReLU, expected_mloss, mloss_bound, paper_approximation
from theory.certified import (
    certified_total_variation,
    gelu_can_fall_below_relu,
    gelu_exceeds_relu,
    relu_constant_is_an_eighth,
    smooth_constant,
)
from theory.certified.ranking import LEAST_K

Array = NDArray[np.float64]

RATIOS = np.geomspace(2, 10_000, 25)
SIGMAS = np.geomspace(0.01, 100, 25)
SLOPES = (0.0, 0.01, 0.25, 0.9, 2.0, -0.5)
# expected_mloss promises 1e-12 relative for closed forms and 1e-10 for GELU.
CLOSED_FORM, QUADRATURE = 1e-12, 1e-10
PROVED_FROM = float(LEAST_K)  # the k from which GELU is proved to be above ReLU


@claim(
    "leaky-relu-ratio",
    where="Section 4",
    states="E[D_Leaky] is (1 - alpha) times E[D_ReLU]",
    recorded="confirmed",
)
def leaky_relu_ratio(*, seed: int) -> Finding:
    """Symbolically, on the exact values at every k and sigma, and in simulation."""
    relu = expected_mloss("relu", RATIOS, 1.0)
    worst = max(
        float(
            np.abs(expected_mloss(LeakyReLU(slope), RATIOS, 1.0) / relu - factor).max()
        )
        for slope in SLOPES
        if (factor := abs(1 - slope))
    )
    # Separate streams: the ratio's relative error is the root of a sum of squares.
    leaky, plain = (
        simulated("leaky_relu", 1.0, seed)[0],
        simulated("relu", 1.0, seed)[0],
    )
    ratio = leaky.value / plain.value
    stderr = ratio * sqrt(
        (leaky.stderr / leaky.value) ** 2 + (plain.stderr / plain.value) ** 2
    )
    exact = leaky_relu_is_affine_in_relu() and worst <= 2 * CLOSED_FORM
    simulation_agrees = abs(ratio - (1 - LEAKY_SLOPE)) <= 5 * stderr
    return Finding(
        Verdict.CONFIRMED if exact and simulation_agrees else Verdict.REFUTED,
        found=f"exact for every k and sigma, as |1 - alpha|; at alpha = {LEAKY_SLOPE} "
        f"simulation gives {ratio:.4f}",
        uncertainty=f"{worst:.0e} on the exact values; {stderr:.4f} in simulation",
        how=(How.SYMBOLIC, How.SIMULATED),
        truth="" if exact and simulation_agrees else "The ratio is not 1 - alpha.",
        numbers={"worst_error": worst, "simulated": ratio, "stderr": stderr},
    )


@claim(
    "activation-ranking",
    where="Section 4",
    states="By the printed constants GELU's expected M-Loss (0.25) is below ReLU's "
    "(0.3989)",
    recorded="corrected",
)
def activation_ranking() -> Finding:
    """Prove where GELU is above ReLU, and find by how much and where they cross."""
    above, below = gelu_exceeds_relu(), gelu_can_fall_below_relu()
    k, sigma = _grid()
    ratio = expected_mloss("gelu", k, sigma) / expected_mloss("relu", k, sigma)
    wide = k >= 1
    crossings = [_gelu_relu_crossing(each) for each in RATIOS]
    first, last = min(crossings), max(crossings)
    if ratio[wide].min() <= 1 or last > PROVED_FROM:
        return Finding.not_checkable(
            f"it is proved that {above.statement}, and the exact values deny it"
        )
    return Finding(
        Verdict.CORRECTED,
        found=f"proved: {above.statement}; {below.statement}, being "
        f"{interval(below.values['E[D_GELU]'])} against "
        f"{interval(below.values['E[D_ReLU]'])}; for k >= 1 and k/sigma from 2 to "
        f"10,000 GELU is {ratio[wide].min():.3f} to {ratio[wide].max():.3f} times ReLU "
        f"on a grid; they cross between k = {first:.3f} "
        f"and {last:.3f} ({crossings[-1]:.3f} at k/sigma = {RATIOS[-1]:,.0f}, "
        f"{crossings[0]:.3f} at {RATIOS[0]:.0f}), and GELU is below only for narrower "
        "k",
        uncertainty=f"none in what is proved, by interval arithmetic in {above.boxes} "
        f"boxes; {QUADRATURE:.0e}, the quadrature of the exact GELU values",
        how=(How.CERTIFIED, How.SYMBOLIC),
        truth=f"GELU's expected M-Loss is above ReLU's for every k >= {PROVED_FROM}, "
        f"by up to {ratio.max() - 1:.0%}, and below it only for pre-activations within "
        f"{crossings[-1]:.2f} (sigma << k) to {crossings[0]:.2f} (sigma = k/2) of "
        "zero.",
        numbers={
            "ratio_min": float(ratio[wide].min()),
            "ratio_max": float(ratio.max()),
            "crossing_k_min": first,
            "crossing_k_max": last,
            "certified_from_k": PROVED_FROM,
            "certified_boxes": above.boxes,
        },
    )


@claim(
    "smaller-for-larger-k",
    where="Section 4",
    states="A larger k lowers the expected M-Loss, at given sigma",
    recorded="confirmed",
)
def smaller_for_larger_k() -> Finding:
    """Check that E[D] strictly falls in k on the grid, for the three activations."""
    k, sigma = _grid()
    slopes = [
        _log_slope(expected_mloss(f, k, sigma), k, axis=1) for f in THEORY.values()
    ]
    return _monotone("k", slopes, expected_sign=-1)


@claim(
    "smaller-for-smaller-sigma",
    where="Section 4",
    states="A smaller sigma lowers the expected M-Loss, at given k",
    recorded="confirmed",
)
def smaller_for_smaller_sigma() -> Finding:
    """Check that E[D] strictly rises in sigma on a grid, for the three activations."""
    k = np.geomspace(0.1, 1_000, 25)[None, :]
    sigma = np.geomspace(1e-4, 0.5, 25)[:, None] * k
    slopes = [
        _log_slope(expected_mloss(f, k, sigma), sigma, axis=0) for f in THEORY.values()
    ]
    return _monotone("sigma", slopes, expected_sign=1)


@claim(
    "small-for-k-above-sigma",
    where="Section 4",
    states="The expected M-Loss is small when k >> sigma",
    recorded="confirmed",
)
def small_for_k_above_sigma() -> Finding:
    """Bound E[D] / sigma by a rate in sigma / k: it must vanish with sigma / k."""
    k, sigma = _grid()
    values = {name: expected_mloss(f, k, sigma) for name, f in THEORY.items()}
    bounded = all(
        (values[name] <= mloss_bound(f, k, sigma) * (1 + QUADRATURE)).all()
        for name, f in THEORY.items()
    )
    relative = {name: value / sigma for name, value in values.items()}
    at_100 = max(
        float((expected_mloss(f, 100 * SIGMAS, SIGMAS) / SIGMAS).max())
        for f in THEORY.values()
    )
    furthest = max(float(value[:, -1].max()) for value in relative.values())
    return Finding(
        Verdict.CONFIRMED if bounded else Verdict.REFUTED,
        found=f"E[D]/sigma is at most {at_100:.1e} at k/sigma = 100 and {furthest:.1e} "
        "at 10,000; it never exceeds TV(f') sigma / (8k), with TV(f') 1 for ReLU and "
        f"proved to be in {interval(certified_total_variation('gelu'))} for GELU",
        uncertainty=f"{QUADRATURE:.0e}, the accuracy of the exact values",
        how=(How.CERTIFIED, How.SYMBOLIC),
        truth="" if bounded else "The bound TV(f') sigma^2 / (8k) is exceeded.",
        numbers={"at_100": at_100, "at_10000": furthest},
    )


@claim(
    "printed-values-are-upper-bounds",
    where="Section 4",
    states="Expected node M-Loss as printed (root over 2 pi) bounds the discrepancy of "
    "a node",
    recorded="confirmed",
)
def printed_values_are_upper_bounds() -> Finding:
    """Prove it of each constant; compare the values, also where k is only 2 sigma."""
    k, sigma = _grid()
    excess = {
        name: paper_approximation(f, k, sigma) / expected_mloss(f, k, sigma)
        for name, f in THEORY.items()
    }
    (relu,) = relu_constant_is_an_eighth().values.values()
    gelu = smooth_constant("gelu").values["TV(f')/8"]
    proved = relu.lower > 1 and gelu.upper < paper_approximation("gelu", 1.0, 1.0)
    bounds = proved and all((ratio >= 1).all() for ratio in excess.values())
    smallest = ", ".join(f"{n} {ratio.min():.2f}" for n, ratio in excess.items())
    return Finding(
        Verdict.CONFIRMED if bounds else Verdict.REFUTED,
        found="proved for every k and sigma: ReLU's value and Leaky ReLU's are at most "
        f"the printed ones over {interval(relu)}, and k E[D_GELU]/sigma^2 is at most "
        f"TV(f')/8, in {interval(gelu)}; printed over exact, at least: {smallest}, for "
        "k/sigma from 2 to 10,000",
        uncertainty="none in what is proved; "
        f"{QUADRATURE:.0e}, the accuracy of the exact values",
        how=(How.CERTIFIED, How.SYMBOLIC),
        truth="" if bounds else "Somewhere the exact value exceeds the printed one.",
        numbers={name: float(ratio.min()) for name, ratio in excess.items()},
    )


def _grid() -> tuple[Array, Array]:
    """Span k and sigma [sigma, ratio], with k / sigma from 2 to 10,000."""
    return SIGMAS[:, None] * RATIOS, np.broadcast_to(SIGMAS[:, None], (25, 25))


def _log_slope(values: Array, along: Array, *, axis: int) -> Array:
    """Difference quotients d log(value) / d log(along) along an axis."""
    steps = np.diff(np.log(np.broadcast_to(along, values.shape)), axis=axis)
    slope: Array = np.diff(np.log(values), axis=axis) / steps
    return slope


def _monotone(name: str, slopes: list[Array], *, expected_sign: int) -> Finding:
    lowest = min(float(slope.min()) for slope in slopes)
    highest = max(float(slope.max()) for slope in slopes)
    holds = all((expected_sign * slope > 0).all() for slope in slopes)
    return Finding(
        Verdict.CONFIRMED if holds else Verdict.REFUTED,
        found=f"holds for all three activations on the grid: d log E[D] / d log {name} "
        f"is between {lowest:.2g} and {highest:.2g}"
        if holds
        else f"d log E[D] / d log {name} ranges from {lowest:.2g} to {highest:.2g}",
        uncertainty=f"{QUADRATURE:.0e}, the accuracy of the exact values; that a lower "
        "M-Loss gives a better merge is a separate claim",
        how=(How.SYMBOLIC,),
        truth="" if holds else f"The expected M-Loss is not monotone in {name}.",
        numbers={"slope_min": lowest, "slope_max": highest},
    )


def _gelu_relu_crossing(ratio: float) -> float:
    """Find the k at which GELU and ReLU expect the same, for sigma = k / ratio."""

    def difference(k: float) -> float:
        sigma = k / ratio
        gelu, relu = (expected_mloss(f, k, sigma) for f in ("gelu", "relu"))
        return float(gelu / relu - 1)

    return float(brentq(difference, 0.1, 2.0))

"""Figures of one node's expected M-Loss: exact, simulated and as printed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from scipy.special import stdtrit

from figures.agreement import Differences, agreement
from figures.expectation import Curves, ErrorMap, approximation_error, expectation
from figures.gallery.plate import Plate
from figures.validity import LEVELS, Region, validity
from simulate import estimate_mloss
from simulate.sweep import sweep
from theory import (
    estimated_mloss,
    expected_mloss,
    paper_approximation,
    total_variation,
)
from theory.validity import excess, predicted_sigma

Array: TypeAlias = npt.NDArray[np.float64]

ACTIVATIONS = {"relu": "ReLU", "leaky_relu": "Leaky ReLU", "gelu": "GELU"}
READINGS = {
    "k_outside_root": "printed, $k$ outside the root",
    "k_inside_root": "printed, $k$ inside the root",
}
FIXED_K = 10.0
FIXED_SIGMA = 1.0
AGREEMENT_RTOL = 1e-3  # of theory where it samples, in three standard errors
SAMPLES = 2_000_000  # a point; two standard errors are a quarter at k/sigma = 10,000


def draw_expectation(seed: int) -> Figure:
    """Exact, printed and simulated k E[D]/sigma^2, first at fixed k, then sigma."""
    rng = np.random.default_rng(seed)
    ratio, points = np.geomspace(2, 1e4, 100), np.geomspace(2, 1e4, 8)

    def curves(name: str, note: str, scales: Callable[[Array], Array]) -> Curves:
        k, sigma = scales(ratio)
        simulated, stderr = _simulated(name, *scales(points), rng=rng)
        return Curves(
            title=f"{ACTIVATIONS[name]}, {note}",
            ratio=ratio,
            exact=k / sigma**2 * expected_mloss(name, k, sigma),
            printed={
                label: k / sigma**2 * paper_approximation(name, k, sigma, reading=form)
                for form, label in READINGS.items()
                if name != "gelu" or form == "k_outside_root"  # its formula has no root
            },
            simulated_ratio=points,
            simulated=simulated,
            stderr=stderr,
            limit=total_variation(name) / 8,
        )

    def at_fixed_k(r: Array) -> Array:
        return np.stack([np.full_like(r, FIXED_K), FIXED_K / r])

    def at_fixed_sigma(r: Array) -> Array:
        return np.stack([FIXED_SIGMA * r, np.full_like(r, FIXED_SIGMA)])

    rows = (
        (f"$k = {FIXED_K:g}$", at_fixed_k),
        (rf"$\sigma = {FIXED_SIGMA:g}$", at_fixed_sigma),
    )
    return expectation(
        [[curves(name, note, scales) for name in ACTIVATIONS] for note, scales in rows]
    )


def _simulated(
    name: str, ks: Array, sigmas: Array, *, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Simulate k E[D]/sigma^2 at each point [p]; values and standard errors."""
    estimates = [
        estimate_mloss(name, float(k), float(sigma), n=SAMPLES, rng=rng)
        for k, sigma in zip(ks, sigmas, strict=True)
    ]
    unit = ks / sigmas**2
    values = np.array([estimate.value for estimate in estimates])
    return unit * values, unit * np.array([estimate.stderr for estimate in estimates])


def draw_agreement(seed: int) -> Figure:
    """Simulation over theory, less 1, over k/sigma, for two and more models."""
    table = sweep(
        list(ACTIVATIONS),
        (0.5, 3, 20, 1e2, 1e3, 1e4, 1e5, 1e6),
        [FIXED_SIGMA],
        qs=(2, 3, 8),
        n=2**21,
        rtol=2e-3,
        rng=np.random.default_rng(seed),
        workers=1,
    )
    rows = table.to_pylist()
    return agreement(
        {
            title: {
                f"{q} models": _differences(
                    [row for row in rows if (row["activation"], row["q"]) == (name, q)]
                )
                for q in (2, 3, 8)
            }
            for name, title in ACTIVATIONS.items()
        }
    )


def _differences(rows: Sequence[Mapping[str, Any]]) -> Differences:
    """Cells of one activation and q against theory, with 95 % intervals."""
    k, sigma, value, stderr, degrees = (
        np.array([row[name] for row in rows])
        for name in ("k", "sigma", "value", "stderr", "degrees")
    )
    claim = estimated_mloss(
        rows[0]["activation"], k, sigma, q=rows[0]["q"], rtol=AGREEMENT_RTOL
    )
    # Theory's error is three standard errors, where it samples too.
    spread = np.hypot(stderr, claim.error / 3)
    return Differences(
        ratio=k / sigma,
        difference=value / claim.value - 1,
        half_width=stdtrit(degrees, 0.975) * spread / claim.value,
    )


def draw_approximation_error(_seed: int) -> Figure:
    """Relative error of the printed formulas for ReLU and GELU, over (k, sigma)."""
    k, sigma = np.geomspace(0.1, 100, 80), np.geomspace(1e-3, 10, 80)
    formulas = {"relu": r"$\sigma^2/(\sqrt{2\pi}\,k)$", "gelu": r"$\sigma^2/(4k)$"}
    return approximation_error(
        [
            ErrorMap(
                title=f"{ACTIVATIONS[name]}, printed {formula}",
                k=k,
                sigma=sigma,
                error=paper_approximation(name, k, sigma[:, None])
                / expected_mloss(name, k, sigma[:, None])
                - 1,
            )
            for name, formula in formulas.items()
        ]
    )


def draw_validity(_seed: int) -> Figure:
    """Where the total-variation law is good to 1, 5 and 10 %, over (k, sigma)."""
    titles = {"relu": "ReLU", "gelu": "GELU", "silu": "SiLU"}
    return validity([_region(name, title) for name, title in titles.items()])


def _region(name: str, title: str) -> Region:
    points = 18 if name == "silu" else 60  # SiLU takes a slower quadrature
    k, sigma = np.geomspace(1, 100, points), np.geomspace(0.03, 30, points)
    nowhere = np.zeros((len(LEVELS), points))  # a kink has no such expansion
    return Region(
        title=title,
        k=k,
        sigma=sigma,
        excess=excess(name, k, sigma[:, None]),
        predicted=nowhere
        if name == "relu"
        else np.stack([predicted_sigma(name, k, within=p / 100) for p in LEVELS]),
    )


PLATES = {
    "expectation": Plate(
        "Expected node M-Loss of two models in units of sigma^2/k: exact, simulated "
        "(bars are two standard errors) and as the paper prints it. Above, sigma "
        "shrinks at fixed k; below, k grows at fixed sigma, and the reading with k "
        "inside the root leaves the axes.",
        draw_expectation,
    ),
    "agreement": Plate(
        "Expected node M-Loss simulated from the definition, relative to theory's "
        "value. Bars are 95 % intervals, of which one in twenty misses zero.",
        draw_agreement,
    ),
    "approximation_error": Plate(
        "Relative error of the paper's approximations over (k, sigma). On the dashed "
        "line sigma = k; the formulas are meant for k well above sigma, below it.",
        draw_approximation_error,
    ),
    "validity": Plate(
        "Where the total-variation law TV V/(4k) is within 1, 5 and 10 % of the exact "
        "expected M-Loss of two models. ReLU asks for k/sigma alone; a smooth bend "
        "also for a range that covers it and for errors narrower than it.",
        draw_validity,
    ),
}

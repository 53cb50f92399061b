r"""Expected node M-Loss inside two floats, proved by ball arithmetic.

For two sources of equal weight and independent errors, 4k E[D] is V = sigma^2 / 2
less its missing edges for ReLU (`shifted_relu_gap` at 0), and 4k (E[S] + 2 E[S^-])
for the smooth activations. Every truncation is bounded and added, so the ball holds
the expectation, whatever the floats on the way suggested.
"""

import sys
from math import ceil, log2

from flint import arb, ctx
from numpy.typing import ArrayLike

from theory.activations import NAMED, Activation, LeakyReLU
from theory.analysis import resolve
from theory.certified.enclosure import Enclosure, outward
from theory.certified.gaussian import shifted_relu_gap
from theory.certified.negative import negative_part
from theory.certified.signed import signed_gap
from theory.certified.smooth import GELU, QUICK_GELU, SILU, SmoothActivation
from theory.law import positive

SMOOTH: dict[str, SmoothActivation] = {
    "gelu": GELU,
    "quick_gelu": QUICK_GELU,
    "silu": SILU,
}
FINEST = 1e-14
_ATTEMPTS = 3


def certified_mloss(
    activation: str | Activation,
    k: float,
    sigma: float,
    *,
    rtol: float = 1e-8,
) -> Enclosure:
    r"""A proved enclosure of E | f((a + b)/2) - (f(a) + f(b))/2 | (paper Section 4).

    a, b ~ N(x, sigma^2) independent given x ~ U(-k, k): `expected_mloss` for q = 2,
    in the units of the activation's output. The float64 numbers k and sigma are taken
    as exact; quick-GELU's scale is exactly 1.702. The width is at most rtol times
    the lower end. For relu, leaky_relu, gelu, quick_gelu and silu.

    Raises ValueError naming the argument where k or sigma is not one finite number
    > 0, rtol is not in [1e-14, 1), or the activation is another; ArithmeticError
    where that width is not reached, as where E[D] itself is not a normal float64.
    """
    f = resolve(activation)
    half_width, deviation = _exact("k", k), _exact("sigma", sigma)
    if not FINEST <= rtol < 1:
        raise ValueError(f"rtol must be in [{FINEST}, 1), got {rtol}")
    found = None
    for attempt in range(_ATTEMPTS):
        with ctx.workprec(_precision(half_width, deviation, rtol) << attempt):
            goal = arb(rtol) / 4 ** (2 * attempt + 1)
            mean = _scaled(f, half_width, deviation, goal) / (4 * half_width)
            if not mean.is_finite():
                continue
            found = outward(mean)
            if found.width <= rtol * found.lower:
                return found
            if mean < sys.float_info.min:
                break
    raise ArithmeticError(
        f"no enclosure of relative width {rtol} for {f.name} at k = {k}, "
        f"sigma = {sigma}; reached {found}"
    )


def _exact(name: str, value: ArrayLike) -> arb:
    array = positive(name, value)
    if array.ndim:
        raise ValueError(f"{name} must be one number, got the shape {array.shape}")
    return arb(float(array))


def _precision(k: arb, sigma: arb, rtol: float) -> int:
    """Bits: S is of the order of sigma^2, and missing edges cancel for k < sigma."""
    lost = 2 * max(0.0, -log2(float(sigma))) + max(0.0, log2(float(sigma / k)))
    return 64 + ceil(lost - log2(rtol))


def _scaled(f: Activation, k: arb, sigma: arb, rtol: arb) -> arb:
    """4k E[D], to about rtol."""
    relu = shifted_relu_gap(arb(0), k, sigma, within=True)
    if isinstance(f, LeakyReLU):
        return abs(1 - arb(f.negative_slope)) * relu
    for name, smooth in SMOOTH.items():
        if f == NAMED[name]:
            # The curvature within about k + sigma of 0 is what counts.
            size = relu * ((k + sigma) / smooth.reach()).min(arb(1))
            return _smooth(smooth, k, sigma, rtol * size)
    raise ValueError(
        f"no certified expectation for activation {f.name!r}: "
        f"relu, leaky_relu, {', '.join(SMOOTH)} have one"
    )


def _smooth(f: SmoothActivation, k: arb, sigma: arb, tolerance: arb) -> arb:
    """4k (E[S] + 2 E[S^-])."""
    end = (f.inflection() + f.reach() / 4).mid()
    while not 4 * sigma * sigma * f.slope_excess(end) < tolerance:
        end = (end + f.reach() / 4).mid()
    signed = signed_gap(f, k, sigma, end=end, tolerance=tolerance / 8)
    negative = negative_part(f, k, sigma, end=end, tolerance=tolerance / 64)
    return signed + 16 * negative

r"""Proved statements about the paper's Section 4, each with how it was proved.

The constant of an activation is k E[D] / sigma^2 for two sources of equal weight and
independent errors: the paper prints 1/sqrt(2 pi) for ReLU and 1/4 for GELU.
"""

from dataclasses import dataclass, field

from flint import arb, ctx

from theory.certified.enclosure import Enclosure, outward
from theory.certified.expectation import SMOOTH, certified_mloss
from theory.certified.ranking import LEAST_K, boxes_with_positive_excess

_BITS = 96


@dataclass(frozen=True)
class Certificate:
    """A proved statement, the proof's method and the numbers in it.

    `boxes` counts the boxes of a subdivision, 0 where the proof needs none.
    """

    statement: str
    method: str
    values: dict[str, Enclosure] = field(default_factory=dict)
    boxes: int = 0


def certified_total_variation(name: str) -> Enclosure:
    """TV(f') of gelu, quick_gelu or silu, to the last bit but one.

    Raises ValueError for another name.
    """
    if name not in SMOOTH:
        raise ValueError(f"name must be one of {', '.join(SMOOTH)}, got {name!r}")
    with ctx.workprec(_BITS):
        return outward(SMOOTH[name].total_variation())


def relu_constant_is_an_eighth() -> Certificate:
    """ReLU's constant is below 1/8, so the printed one is 3.19 times too large."""
    with ctx.workprec(_BITS):
        ratio = outward(8 / (2 * arb.pi()).sqrt())
    return Certificate(
        statement=(
            "k E[D_ReLU] / sigma^2 < 1/8 for every k and sigma, and tends to 1/8 as "
            f"k/sigma grows; the printed 1/sqrt(2 pi) is at least {ratio.lower} times "
            "too large"
        ),
        method="4k E[D] is sigma^2/2 less two positive edge terms",
        values={"printed over limit": ratio},
    )


def smooth_constant(name: str) -> Certificate:
    """The constant of gelu, quick_gelu or silu is at most TV(f')/8, below 1/4.

    Raises ValueError for another name.
    """
    variation = certified_total_variation(name)
    limit = Enclosure(variation.lower / 8, variation.upper / 8)  # exact in binary
    _require(limit.upper < 0.25, f"the constant of {name} stays below 1/4")
    return Certificate(
        statement=(
            f"k E[D] / sigma^2 of {name} is at most {limit.upper} for every k and "
            "sigma, so never 1/4"
        ),
        method="E[D] <= TV(f') V / (4k), TV(f') = 4F - 3 for F the largest slope",
        values={"TV(f')": variation, "TV(f')/8": limit},
    )


def gelu_exceeds_relu() -> Certificate:
    """GELU's expectation is above ReLU's for every sigma once k >= 0.851."""
    boxes = boxes_with_positive_excess()
    return Certificate(
        statement=f"E[D_GELU] > E[D_ReLU] for every sigma > 0 and every k >= {LEAST_K}",
        method=(
            "E[D] >= E[S], whose heat kernels are compared: by hand where "
            "3(1 + v) <= k^2 or v^2 + v >= 1, in boxes of (k, v) elsewhere"
        ),
        boxes=boxes,
    )


def gelu_can_fall_below_relu() -> Certificate:
    """At k = 0.84 and sigma = 0.47 the ranking is reversed."""
    k, sigma = 0.84, 0.47
    gelu, relu = (certified_mloss(name, k, sigma) for name in ("gelu", "relu"))
    _require(gelu.upper < relu.lower, "GELU is below ReLU there")
    return Certificate(
        statement=f"E[D_GELU] < E[D_ReLU] at k = {k}, sigma = {sigma}",
        method="two enclosures that do not meet",
        values={"E[D_GELU]": gelu, "E[D_ReLU]": relu},
    )


def certificates() -> tuple[Certificate, ...]:
    """Every statement of this module, proved anew; under a second."""
    return (
        relu_constant_is_an_eighth(),
        *(smooth_constant(name) for name in SMOOTH),
        gelu_exceeds_relu(),
        gelu_can_fall_below_relu(),
    )


def _require(proved: bool, statement: str) -> None:  # noqa: FBT001  # as assert reads
    if not proved:
        raise ArithmeticError(f"could not prove that {statement}")

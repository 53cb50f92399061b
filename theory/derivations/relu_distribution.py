"""The law of D for ReLU: its distribution function, E[D], E[D^2] and variance.

In units of sigma: y = x / sigma, c = 2 d / sigma, z = k / sigma.
"""

import sympy as sp  # type: ignore[import-untyped]  # sympy ships no types

from theory.derivations.normal import Density, Distribution
from theory.derivations.relu import average
from theory.derivations.step import Derivation, Differentiates, Step

_y, _s = sp.symbols("y s", real=True)
_a, _b, _c, _z, _C = sp.symbols("a b c z C", positive=True)


def both_beyond(y: sp.Expr, c: sp.Expr) -> sp.Expr:
    """Phi(y - c) Phi(-y - c): one source above c, the other below -c."""
    return Distribution(y - c) * Distribution(-y - c)


def mean_given(y: sp.Expr) -> sp.Expr:
    """E[D | x] / sigma, from ReLU's Gaussian means at variances 1 and 1/2."""
    r = sp.sqrt(2) * y
    sources = y * Distribution(y) + Density(y)
    return sources - y * Distribution(r) - Density(r) / sp.sqrt(2)


def square_given(y: sp.Expr) -> sp.Expr:
    """E[D^2 | x] / sigma^2."""
    same = (1 + y**2) * Distribution(y) * Distribution(-y)
    lean = y * Density(y) * (Distribution(y) - Distribution(-y))
    return (same - lean - Density(y) ** 2) / 2


def second_moment(z: sp.Expr) -> sp.Expr:
    """E[D^2] / sigma^2 at z = k / sigma."""
    inside = (
        (z + z**3 / 3) * Distribution(z) * Distribution(-z)
        - (z**2 + 2) / 3 * Density(z) * sp.erf(z / sp.sqrt(2))
        - z / 3 * Density(z) ** 2
        + sp.erf(z) / (6 * sp.sqrt(sp.pi))
    )
    return inside / (2 * z)


def _distribution_steps() -> tuple[Step, ...]:
    gap = (sp.Max(_a, 0) + sp.Max(-_b, 0)) / 2 - sp.Max((_a - _b) / 2, 0)
    lost = Density(_y - _c) * Distribution(-_y - _c)
    inner = (
        _z * both_beyond(_z, _c)
        + Density(_z - _c) * Distribution(-_z - _c)
        - Density(_z + _c) * Distribution(_z - _c)
        + sp.exp(-(_c**2)) * sp.erf(_z) / (2 * sp.sqrt(sp.pi))
        - _c * sp.Integral(lost, (_y, -_z, _z))
    )
    return (
        Step(
            "Where the sources agree in sign, ReLU is linear and D = 0. Where one is "
            "a > 0 and the other -b < 0, D is half the smaller distance to the kink:",
            gap,
            sp.Min(_a, _b) / 2,
        ),
        Step(
            "So D > d needs one source above 2d and the other below -2d. Given x they "
            "are independent, and either may be the upper one: twice a product of "
            "Gaussian tails, at c = 2d / sigma and y = x / sigma:",
            2
            * sp.Integral(Density(_s - _y), (_s, _c, sp.oo))
            * sp.Integral(Density(_s - _y), (_s, -sp.oo, -_c)),
            2 * both_beyond(_y, _c),
        ),
        Step(
            "Averaged over x, P(D > d) is 2/z, z = k / sigma, times the integral that "
            "follows. What is left of it on the right is a bivariate normal "
            "probability (correlation 1 / sqrt 2), which is Owen's T:",
            sp.Integral(both_beyond(_y, _c), (_y, 0, _z)),
            inner,
            Differentiates(_z, 0),
        ),
        Step(
            "At c = 0 it is elementary, and P(D = 0) = 1 - P(D > 0):",
            sp.Integral(both_beyond(_y, sp.Integer(0)), (_y, 0, _z)),
            inner.subs(_c, 0),
            Differentiates(_z, 0),
        ),
    )


def _large_k_steps() -> tuple[Step, ...]:
    r = sp.sqrt(2) * _c
    return (
        Step(
            "For k >> sigma the integral may run over the whole line, which doubles "
            "it. It is then the mean length of the interval of y with Z_1 + c < y < "
            "-Z_2 - c, for Gaussians whose sum is sqrt 2 times another:",
            sp.Integral((sp.sqrt(2) * _s - 2 * _c) * Density(_s), (_s, r, sp.oo)),
            sp.sqrt(2) * Density(r) - 2 * _c * Distribution(-r),
        ),
        Step(
            "What lies beyond z is at most the integral of the second factor:",
            sp.Integral(Distribution(-_y - _c), (_y, _z, sp.oo)),
            Density(_z + _c) - (_z + _c) * Distribution(-_z - _c),
            Differentiates(_z, sp.oo),
        ),
    )


def _mean_steps() -> tuple[Step, ...]:
    product, flow = both_beyond(_y, _c), _flow()
    slope = sp.diff(product, _c).subs(_c, _C)
    bell = sp.exp(-(_y**2)) / sp.sqrt(sp.pi)
    return (
        Step(
            "For the moments: the product obeys a wave equation with a source,",
            sp.Derivative(product, (_y, 2)),
            flow,
        ),
        Step(
            "whose integral over c up to C is explicit:",
            sp.Integral(flow, (_c, 0, _C)),
            slope + Density(_y) - bell * sp.erf(_C),
            Differentiates(_C, 0),
        ),
        Step(
            "E[D given x] / sigma is the integral of the product over all c > 0, and "
            "vanishes for large y. With C to infinity its second derivative is "
            "phi(y) - exp(-y^2) / sqrt pi, which belongs to",
            sp.Derivative(mean_given(_y), (_y, 2)),
            Density(_y) - bell,
        ),
        Step(
            "and to no other function that vanishes for large y:",
            sp.Limit(mean_given(_y), _y, sp.oo),
            sp.Integer(0),
        ),
        Step(
            "Its average over x is what the expectations of ReLU at the variances 1 "
            "and 1/2 give (derivation relu):",
            sp.Integral(mean_given(_y), (_y, 0, _z)),
            _z * (average(_z, sp.Integer(1)) - average(_z, sp.Rational(1, 2))),
        ),
    )


def _square_steps() -> tuple[Step, ...]:
    product = both_beyond(_y, _c)
    at_C = product.subs(_c, _C)
    slope = sp.diff(product, _c).subs(_c, _C)
    bell = sp.exp(-(_y**2)) / sp.pi
    return (
        Step(
            "E[D^2 given x] / sigma^2 is the integral over c > 0 of c times the "
            "product. As before,",
            sp.Integral(_c * _flow(), (_c, 0, _C)),
            _C * slope
            - at_C
            + both_beyond(_y, sp.Integer(0))
            - bell * (1 - sp.exp(-(_C**2))),
            Differentiates(_C, 0),
        ),
        Step(
            "with C to infinity it is the second derivative of",
            sp.Derivative(square_given(_y), (_y, 2)),
            both_beyond(_y, sp.Integer(0)) - bell,
        ),
        Step(
            "which vanishes for large y:",
            sp.Limit(square_given(_y), _y, sp.oo),
            sp.Integer(0),
        ),
        Step(
            "Its average over x, times z, is z E[D^2] / sigma^2:",
            sp.Integral(square_given(_y), (_y, 0, _z)),
            _z * second_moment(_z),
            Differentiates(_z, 0),
        ),
        Step(
            "For k >> sigma it is",
            sp.Limit(_z * second_moment(_z), _z, sp.oo),
            1 / (12 * sp.sqrt(sp.pi)),
        ),
    )


def _flow() -> sp.Expr:
    """The second derivative in y of the product, as one in c and a source."""
    source = 4 * Density(_y - _c) * Density(_y + _c)
    return sp.Derivative(both_beyond(_y, _c), (_c, 2)) - source


def derivation() -> Derivation:
    """P(D <= d), P(D = 0), E[D], E[D^2] and Var D for q = 2 and equal weights."""
    return Derivation(
        name="relu_distribution",
        title="The law of D for ReLU, two sources",
        steps=_distribution_steps()
        + _large_k_steps()
        + _mean_steps()
        + _square_steps(),
        conclusion=(
            "with z = k / sigma, P(D > d) is exactly 2/z times the integral of step 3. "
            "For z >> 1 it is the value of step 5 over z, less at most 2/z times that "
            "of step 6: P(D > 0) is 1 / (z sqrt pi) up to exp(-z^2 / 2). "
            "E[D^2] is exact for every z, and sigma^3 / (12 sqrt(pi) k) for z >> 1 up "
            "to exponentially small terms, Phi(-z) and phi(z) times powers of z. With "
            "E[D] as in the derivation relu, Var D = E[D^2] - E[D]^2 is then "
            "sigma^3 / (12 sqrt(pi) k) - sigma^4 / (64 k^2)."
        ),
    )

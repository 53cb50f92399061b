"""Derivations by sympy, from the definitions alone.

For two sources and ReLU, D = max(r - |m|, 0) / 2 with r = |a - b| / 2, where
(a - b) / 2 ~ N(0, sigma^2 / 2), and m = (a + b) / 2, whose density is 1/(2k) around
the kink for k >> sigma.
"""

from itertools import pairwise

import sympy as sp  # type: ignore[import-untyped]  # sympy ships no types

_m, _r, _k, _sigma, _alpha = sp.symbols("m r k sigma alpha", positive=True)
_x = sp.symbols("x", real=True)


def relu_constant() -> float:
    """Derive the c of E[D_ReLU] = c sigma^2 / k for k >> sigma."""
    return float(sp.simplify(_moment(1) * _k / _sigma**2))


def relu_rms_constant() -> float:
    """Derive the c of sqrt(E[D_ReLU^2]) = c sigma^(3/2) / k^(1/2) for k >> sigma."""
    return float(sp.sqrt(sp.simplify(_moment(2) * _k / _sigma**3)))


def leaky_relu_is_affine_in_relu() -> bool:
    """Whether LeakyReLU(x) = alpha x + (1 - alpha) ReLU(x) for every real x.

    The linear part cancels in D, which is therefore |1 - alpha| times ReLU's.
    """
    leaky = sp.Max(_x, 0) + _alpha * sp.Min(_x, 0)
    claimed = _alpha * _x + (1 - _alpha) * sp.Max(_x, 0)
    return bool(sp.simplify((leaky - claimed).rewrite(sp.Piecewise)) == 0)


def gelu_total_variation() -> float:
    """Derive the total variation of GELU's derivative from its turning points."""
    slope = sp.diff(_x * (1 + sp.erf(_x / sp.sqrt(2))) / 2, _x)
    curvature = sp.simplify(sp.diff(slope, _x) * sp.exp(_x**2 / 2))
    turns = sorted(sp.solve(curvature, _x))
    heights = [sp.limit(slope, _x, -sp.oo), *(slope.subs(_x, turn) for turn in turns)]
    heights.append(sp.limit(slope, _x, sp.oo))
    return float(sum(abs(after - before) for before, after in pairwise(heights)))


def _moment(power: int) -> sp.Expr:
    """E[D^power]: over m on both sides of the kink, then over the half-normal r."""
    given_r = 2 * sp.integrate(((_r - _m) / 2) ** power / (2 * _k), (_m, 0, _r))
    density = 2 * sp.exp(-(_r**2) / _sigma**2) / (sp.sqrt(sp.pi) * _sigma)
    return sp.integrate(given_r * density, (_r, 0, sp.oo))

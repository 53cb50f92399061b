r"""E[sum_i w_i f(h_i) - f(m)] for any f, as a mean of shifted ReLUs.

f is a straight line plus int relu(x - t) df'(t), and the gap of a ReLU shifted by t
has a closed form R(t), so the signed gap is int R(t) df'(t): an integral over the
reach of f, and a term for each kink. For a convex f it is E[D]. docs/theory.md,
sections 2 and 3.
"""

import numpy as np

from theory.activations import Activation, Array
from theory.law import ErrorLaw
from theory.panels import panel_rule
from theory.signed import RELU_KERNEL, kernel_integral

_PANELS = 48  # over the reach of f; each activation here is analytic on its scale
_BENDS = np.array([-7.0, -3.0, -1.0, 0.0, 1.0, 3.0, 7.0])  # of Phi, in deviations
_BLOCK = 32


def signed_expectation(f: Activation, k: Array, sigma: Array, law: ErrorLaw) -> Array:
    """E[sum_i w_i f(h_i) - f(m)], k and sigma of any one shape; about 1e-12 of E[D]."""
    flat_k, flat_sigma = k.reshape(-1), sigma.reshape(-1)
    result = np.empty_like(flat_k)
    for start in range(0, flat_k.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        result[block] = _signed_block(f, flat_k[block], flat_sigma[block], law)
    return result.reshape(k.shape)


def _signed_block(f: Activation, k: Array, sigma: Array, law: ErrorLaw) -> Array:
    t, measure = panel_rule(_edges(f, k, sigma, law))
    weighted = f.curvature(t) * measure
    total: Array = (weighted * shifted_relu(t, k, sigma, law)).sum(axis=1)
    for kink, jump in zip(f.kinks, f.jumps, strict=True):
        here = np.full((len(k), 1), kink)
        total += jump * shifted_relu(here, k, sigma, law)[:, 0]
    return total


def shifted_relu(t: Array, k: Array, sigma: Array, law: ErrorLaw) -> Array:
    """R(t) [point, node], the gap of relu(x - t), for k and sigma [point].

    Its kernel is P(-k < t + sqrt(v) Z < k), the mean of ReLU's at k - t and k + t.
    """
    sides = [_odd_integral(k[:, None] - t, sigma, law)]
    sides.append(_odd_integral(k[:, None] + t, sigma, law))
    total: Array = (sides[0] + sides[1]) / (8 * k[:, None])
    return total


def _odd_integral(a: Array, sigma: Array, law: ErrorLaw) -> Array:
    unit = np.broadcast_to(sigma[:, None], a.shape)
    integral = kernel_integral(np.abs(a), unit, law, RELU_KERNEL)
    signed: Array = integral * np.sign(a)
    return signed


def _edges(f: Activation, k: Array, sigma: Array, law: ErrorLaw) -> Array:
    """Panel edges [point, edge]: those of f, and the bends of R at -k and k."""
    low, high = f.reach
    fixed = [*np.linspace(low, high, _PANELS + 1), *f.inflections, *f.kinks]
    variances = {law.merged_variance, *law.source_variances.tolist()}
    widths = np.sqrt([min(variances), max(variances)])
    bends = (widths[:, None] * _BENDS).ravel() * sigma[:, None]
    moving = [end + bends for end in (k[:, None], -k[:, None])]
    edges = [np.broadcast_to(np.array(fixed), (len(k), len(fixed))), *moving]
    clipped: Array = np.clip(np.concatenate(edges, axis=1), low, high)
    return clipped

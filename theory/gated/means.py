"""Means of absolute values that a gated node asks for, in closed form."""

from math import asin, pi, sqrt

import numpy as np
from scipy.special import erf

from theory.law import Array

_FAR = 9.0  # deviations, past which a Gaussian does not change sign in float64
_NARROW = 0.05  # of the deviation: below it a Taylor series has 1e-15


def mean_product(correlation: float) -> float:
    r"""E|z z'| of two standard normals of that correlation r.

    .. math:: \frac2\pi\bigl(\sqrt{1 - r^2} + r \arcsin r\bigr)

    2 / pi at r = 0, and 1 at r = 1 and -1.
    """
    r = correlation
    return 2 / pi * (sqrt((1 - r) * (1 + r)) + r * asin(r))


def mean_absolute(centre: Array, half_width: Array, deviation: Array) -> Array:
    """E|centre + t + deviation z| for t ~ U(-half_width, half_width), z ~ N(0, 1).

    All of one shape, half_width and deviation >= 0, either of them possibly zero.
    """
    centre = np.abs(centre)
    result = centre.copy()
    near = centre < half_width + _FAR * deviation
    narrow = near & (half_width < _NARROW * deviation)
    wide = near & ~narrow
    result[narrow] = _series(centre[narrow], half_width[narrow], deviation[narrow])
    c, h, s = centre[wide], half_width[wide], deviation[wide]
    result[wide] = (_primitive(c + h, s) - _primitive(c - h, s)) / (2 * h)
    return result


def _primitive(y: Array, deviation: Array) -> Array:
    """The integral of E|t + deviation z| over t from 0 to y."""
    z = np.divide(y, deviation, out=60 * np.sign(y), where=deviation > np.abs(y) / 60)
    edge = y * deviation * np.exp(-(z**2) / 2) / sqrt(2 * pi)
    total: Array = (y**2 + deviation**2) * erf(z / sqrt(2)) / 2 + edge
    return total


def _series(centre: Array, half_width: Array, deviation: Array) -> Array:
    """The same mean by the even derivatives of E|centre + deviation z|."""
    z, h = centre / deviation, half_width / deviation
    density = np.exp(-(z**2) / 2) / sqrt(2 * pi)
    folded = z * erf(z / sqrt(2)) + 2 * density
    powers = h**2 / 6 + h**4 / 120 * (z**2 - 1) + h**6 / 5040 * (z**4 - 6 * z**2 + 3)
    total: Array = deviation * (folded + 2 * density * powers)
    return total

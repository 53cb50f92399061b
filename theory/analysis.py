"""From a name or a bare function to an `Activation`: kinks, turns and slopes found.

A bare function is sampled, split where it is not smooth and fitted by polynomials,
whose derivatives then stand for its own. What follows from it is good to about 1e-8;
an `Activation` with exact derivatives is good to 1e-10.
"""

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.polynomial import chebyshev
from scipy.interpolate import PPoly
from scipy.optimize import brentq

from theory.activations import NAMED, Activation, Array, Elementwise

_EPS = float(np.finfo(float).eps)
_DEGREE = 10
_FURTHEST = 2.0**10
_NARROWEST = 2.0**-16  # of the reach; where no polynomial fits on less, f has a kink


def resolve(activation: str | Activation | Elementwise) -> Activation:
    """Return the activation itself, the one of that name, or an analysed function.

    Raises ValueError for an unknown name and for a function that is not elementwise,
    not finite, or whose slope does not settle (its total variation is infinite, or
    not to be found); TypeError for anything else.
    """
    if isinstance(activation, Activation):
        return activation
    if isinstance(activation, str):
        if activation not in NAMED:
            raise ValueError(
                f"unknown activation {activation!r}; known: {', '.join(NAMED)}"
            )
        return NAMED[activation]
    if not callable(activation):
        raise TypeError(
            "activation must be a name, a theory.Activation or a function of an "
            f"array, got {activation!r}"
        )
    return _analysed(activation)


@lru_cache(maxsize=64)
def _analysed(function: Elementwise) -> Activation:
    """Find reach, kinks, derivatives, inflections and slopes of a bare function."""
    f = _checked(function)
    low, high = _reach(f, -1.0), _reach(f, 1.0)
    kinks = _kinks(f, low, high)
    fit = _fitted(f, [low, *kinks, high])
    first, second = fit.derivative(), fit.derivative(2)
    slopes = (_slope(f, low, 2 * low), _slope(f, high, 2 * high))

    def derivative(x: Array) -> Array:
        inside = first(np.clip(x, low, high))
        return np.where(x < low, slopes[0], np.where(x > high, slopes[1], inside))

    def curvature(x: Array) -> Array:
        return np.where((x > low) & (x < high), second(np.clip(x, low, high)), 0.0)

    return Activation(
        name=getattr(function, "__name__", type(function).__name__),
        function=f,
        derivative=derivative,
        curvature=curvature,
        slopes=slopes,
        reach=(low, high),
        inflections=_sign_changes(second, fit.x),
        kinks=kinks,
    )


def _checked(function: Elementwise) -> Callable[[Array], Array]:
    """The function, refused where it is not elementwise, real and finite."""

    def f(x: Array) -> Array:
        y = np.asarray(function(x), dtype=np.float64)
        if y.shape != np.shape(x):
            raise ValueError(
                "activation must be elementwise: it mapped shape "
                f"{np.shape(x)} to {y.shape}"
            )
        if not np.isfinite(y).all():
            at = np.asarray(x)[~np.isfinite(y)].flat[0]
            raise ValueError(f"activation must be finite, it is not at {at}")
        return y

    return f


def _size(f: Elementwise) -> float:
    """The scale that the rounding of f is measured against."""
    return float(np.abs(f(np.linspace(-4, 4, 17))).max())


def _reach(f: Elementwise, side: float) -> float:
    """The point on one side past which f is a straight line to rounding.

    Looked for inwards, octave by octave, so that a bend far out is not missed.
    """
    distance, size = _FURTHEST, _size(f)
    while _straight(f, side * distance, size) and distance > 1:
        distance /= 2
    if distance < _FURTHEST:
        return side * (
            distance if _straight(f, side * distance, size) else 2 * distance
        )
    raise ValueError(
        f"activation must become a straight line on both sides; it still bends past "
        f"{side * _FURTHEST:g}, so the variation of its slope is infinite or too wide "
        "to find (a theory.Activation states it instead)"
    )


def _straight(f: Elementwise, start: float, size: float) -> bool:
    """Whether f is a straight line from `start` to eight times as far."""
    x = start * np.linspace(1, 8, 29)
    y = f(x)
    line = y[0] + (y[-1] - y[0]) * (x - x[0]) / (x[-1] - x[0])
    return bool(np.abs(y - line).max() <= 64 * _EPS * (np.abs(y).max() + size))


def _slope(f: Elementwise, start: float, stop: float) -> float:
    low, high = f(np.array([start, stop]))
    return float((high - low) / (stop - start))


def _kinks(f: Elementwise, low: float, high: float) -> tuple[float, ...]:
    """Points that no polynomial fits across, however short the panel."""
    # Unequal halves, so that no panel edge falls on a kink at a round number.
    panels = _panels(f, [low, low + 0.4567 * (high - low), high])
    found: list[float] = []
    for a, b in panels:
        if not _too_narrow(a, b, low, high):
            continue
        kink = _meeting_point(f, (a + b) / 2, b - a)
        if not found or kink - found[-1] > 4 * (b - a):
            found.append(kink)
    return tuple(found)


def _meeting_point(f: Elementwise, near: float, width: float) -> float:
    """Where the smooth pieces of f on either side of a kink meet."""

    def piece(start: float, stop: float) -> chebyshev.Chebyshev:
        low, high = near + start * width, near + stop * width
        return chebyshev.Chebyshev(_coefficients(f, low, high), domain=[low, high])

    left, right = piece(-36, -4), piece(4, 36)

    def apart(x: float) -> float:
        return float(left(x) - right(x))

    low, high = near - 4 * width, near + 4 * width
    if apart(low) * apart(high) >= 0:
        # Where only f'' jumps the pieces touch and do not cross.
        if abs(apart(near)) > 1e-3 * width + 1e-9 * _size(f):
            raise ValueError(
                f"activation must be continuous, it jumps near {near:.6g}: the "
                "variation of its slope is infinite"
            )
        return near
    return float(brentq(apart, low, high))


def _panels(f: Elementwise, edges: list[float]) -> list[tuple[float, float]]:
    """Intervals on which a Chebyshev interpolant has f to rounding, or too narrow."""
    low, high, size = edges[0], edges[-1], _size(f)
    open_panels = list(pairwise(edges))[::-1]
    done = []
    while open_panels:
        a, b = open_panels.pop()
        if _too_narrow(a, b, low, high) or _fits(f, a, b, size):
            done.append((a, b))
        else:
            middle = (a + b) / 2
            open_panels += [(middle, b), (a, middle)]
    return done


def _too_narrow(a: float, b: float, low: float, high: float) -> bool:
    return b - a < _NARROWEST * (high - low)


def _coefficients(f: Elementwise, a: float, b: float) -> Array:
    """Chebyshev coefficients of f on (a, b), from its values at Chebyshev points."""
    points = chebyshev.chebpts1(_DEGREE + 1)
    values = f((a + b) / 2 + (b - a) / 2 * points)
    return np.asarray(chebyshev.chebfit(points, values, _DEGREE), dtype=np.float64)


def _fits(f: Elementwise, a: float, b: float, size: float) -> bool:
    tail = np.abs(_coefficients(f, a, b)[-2:]).max()
    values = f(np.linspace(a, b, 5))
    # The rounding of f, and that of x where f is steep.
    steep = np.abs(np.diff(values)).max() * 4 / (b - a) * max(abs(a), abs(b))
    return bool(tail <= 4 * _EPS * (np.abs(values).max() + size + steep))


def _fitted(f: Elementwise, edges: list[float]) -> PPoly:
    """f as a piecewise polynomial, split at the given edges."""
    panels = _panels(f, edges)
    columns = []
    for a, b in panels:
        # In powers of (x - a), as PPoly wants them, highest first.
        local = chebyshev.Chebyshev(_coefficients(f, a, b), domain=[0, b - a])
        power = local.convert(kind=np.polynomial.Polynomial).coef
        columns.append(np.pad(power, (0, _DEGREE + 1 - len(power)))[::-1])
    return PPoly(np.stack(columns, axis=1), [panels[0][0], *(b for _, b in panels)])


def _sign_changes(second: PPoly, edges: Array) -> tuple[float, ...]:
    """Where f'' changes sign, clear of its rounding."""
    grid = [np.linspace(a, b, 9)[1:-1] for a, b in pairwise(edges)]
    x = np.unique(np.concatenate(grid))
    y = second(x)
    clear = np.abs(y) > 1e-7 * max(np.abs(y).max(), 1.0)
    x, y = x[clear], y[clear]
    turns = np.nonzero(np.sign(y[1:]) != np.sign(y[:-1]))[0]
    return tuple(
        float(brentq(lambda t: float(second(t)), x[i], x[i + 1])) for i in turns
    )

r"""The Gaussian in balls, and the M-Loss of a shifted ReLU.

`arb` is a real ball, `acb` a complex rectangle of balls; every operation encloses
the exact result for every point of its operands. Each function here is entire.
"""

from typing import TypeVar

from flint import acb, arb

Ball = TypeVar("Ball", arb, acb)


def density(x: Ball) -> Ball:
    """phi(x) = exp(-x^2 / 2) / sqrt(2 pi)."""
    return (-x * x / 2).exp() / (2 * arb.pi()).sqrt()


def upper_tail(x: Ball) -> Ball:
    """Phi(-x), the chance that a standard normal exceeds x."""
    return (x / arb(2).sqrt()).erfc() / 2


def inside(m: Ball, k: arb, s: arb) -> Ball:
    """P(|m + s Z| < k); the density of m = x + s Z is this over 2k."""
    return upper_tail((m - k) / s) - upper_tail((m + k) / s)


def chance_over(m: acb, k: arb, s: arb) -> arb:
    """A bound on |P(|m + s Z| < k)| over a wide box of complex m.

    phi((m - t)/s) is phi((Re m - t)/s) times a factor of modulus
    exp((Im m)^2 / (2 s^2)), whatever t.
    """
    real = inside(m.real, k, s).upper().min(arb(1))
    return real * (abs(m.imag).upper() ** 2 / (2 * s * s)).exp()


def missing_gap(x: Ball, sigma: arb) -> Ball:
    r"""What an edge at distance x >= 0 takes from the V of `shifted_relu_gap`.

    With b(x, s) = 2 int_x^inf int_y^inf Phi(-t/s) dt dy
    = (x^2 + s^2) Phi(-x/s) - x s phi(x/s), it is b(x, sigma) - b(x, sigma/sqrt 2).
    """
    merged = sigma / arb(2).sqrt()
    return _twice_integrated_tail(x, sigma) - _twice_integrated_tail(x, merged)


def _twice_integrated_tail(x: Ball, s: arb) -> Ball:
    z = x / s
    return (x * x + s * s) * upper_tail(z) - x * s * density(z)


def shifted_relu_gap(t: Ball, k: arb, sigma: arb, *, within: bool) -> Ball:
    r"""4k E[D] for relu(x - t), t >= 0: two sources, independent errors.

    With V = sigma^2 / 2 it is V - missing(k - t) - missing(k + t). As missing(x) +
    missing(-x) = V, it is also missing(t - k) - missing(k + t). The two forms are
    one entire function; `within` picks the first, which does not cancel for t < k.
    """
    if within:
        return sigma * sigma / 2 - missing_gap(k - t, sigma) - missing_gap(k + t, sigma)
    return missing_gap(t - k, sigma) - missing_gap(t + k, sigma)

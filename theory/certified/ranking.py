r"""E[D_GELU] > E[D_ReLU] for every sigma, once k is at least 0.851.

By docs/theory.md section 2, 4k E[D_GELU] >= int K_gelu(v) dv and 4k E[D_ReLU] =
int K_relu(v) dv over v from sigma^2/2 to sigma^2, with K_relu(v) = erf(k/sqrt(2v)),
T = 1 + v and K_gelu(v) = K_relu(T) + 2 k phi(k/sqrt T) T^(-3/2). So it is enough that

    excess(v) = K_gelu(v) - K_relu(v) = k (2 q(T) - int_v^T q(w) dw),
    q(w) = w^(-3/2) phi(k / sqrt w),

be positive for every v > 0. There are three cases.

* T <= k^2/3: q rises up to k^2/3, so the integral is at most q(T).
* v^2 + v >= 1: q(w) <= q(T) (T/w)^(3/2), so the integral is at most
  2 T (sqrt(T/v) - 1) q(T), and sqrt(1 + 1/v) <= 1 + 1/T says the same as v^2 + v >= 1.
* Else v < 0.6181 and k < sqrt(3 T) < 2.204: a rectangle, proved box by box.

For smaller k the ranking depends on sigma; `theory.certified.claims` certifies that
it is reversed at k = 0.84, sigma = 0.47, so 0.851 is nearly the best bound.
"""

from dataclasses import dataclass

from flint import arb, ctx, fmpq

from theory.certified.gaussian import density

LEAST_K = fmpq(851, 1000)
_MOST_K = fmpq(2204, 1000)
_MOST_V = fmpq(6181, 10000)
_BITS = 64


@dataclass(frozen=True)
class _Box:
    """k and v between two fractions each."""

    k: tuple[fmpq, fmpq]
    v: tuple[fmpq, fmpq]

    def halves(self) -> tuple["_Box", "_Box"]:
        """Cut across the longer side."""
        (k0, k1), (v0, v1) = self.k, self.v
        if k1 - k0 > v1 - v0:
            middle = (k0 + k1) / 2
            return _Box((k0, middle), self.v), _Box((middle, k1), self.v)
        middle = (v0 + v1) / 2
        return _Box(self.k, (v0, middle)), _Box(self.k, (middle, v1))

    def excess_is_positive(self) -> bool:
        """Whether a ball around K_gelu lies above the largest K_relu of the box."""
        k = arb(self.k[0]).union(self.k[1])
        t = 1 + arb(self.v[0]).union(self.v[1])
        gelu = (k / (2 * t).sqrt()).erf() + 2 * k * density(k / t.sqrt()) / t**1.5
        least_v = arb(self.v[0])
        relu = (arb(self.k[1]) / (2 * least_v).sqrt()).erf() if least_v > 0 else arb(1)
        return bool(gelu > relu)


def boxes_with_positive_excess(least_k: fmpq = LEAST_K, *, limit: int = 20_000) -> int:
    """How many boxes prove the excess positive for least_k <= k, 0 < v.

    Raises ArithmeticError once `limit` boxes were not enough.
    """
    waiting = [_Box((least_k, _MOST_K), (fmpq(0), _MOST_V))]
    tried = proved = 0
    with ctx.workprec(_BITS):
        while waiting:
            box = waiting.pop()
            tried += 1
            if tried > limit:
                raise ArithmeticError(f"not proved in {limit} boxes; stuck at {box}")
            if box.excess_is_positive():
                proved += 1
            else:
                waiting.extend(box.halves())
    return proved

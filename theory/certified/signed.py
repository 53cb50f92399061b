r"""E[(f(a) + f(b))/2 - f((a+b)/2)] in balls, for any of the smooth activations.

f is a linear function plus int f''(t) relu(x - t) dt and f'' is even, so

    4k E[S] = 2 int_0^inf f''(t) 4k E[D_t] dt,

D_t being the M-Loss of relu(x - t), which needs no absolute value and is explicit.
"""

from flint import acb, arb

from theory.certified.gaussian import shifted_relu_gap
from theory.certified.smooth import SmoothActivation


def signed_gap(
    f: SmoothActivation, k: arb, sigma: arb, *, end: arb, tolerance: arb
) -> arb:
    """4k E[S], integrated up to `end` >= the inflection with the rest enclosed.

    `tolerance` is the absolute error aimed at by the quadrature; beyond `end`
    f'' < 0 and 0 <= 4k E[D_t] <= V.
    """
    edge = k if k < end else end
    below = _integral(f, k, sigma, arb(0), edge, tolerance, within=True)
    above = _integral(f, k, sigma, edge, end, tolerance, within=False)
    beyond = f.slope_excess(end) * sigma * sigma / 2
    return 2 * (below + above - arb(0).union(beyond))


def _integral(
    f: SmoothActivation,
    k: arb,
    sigma: arb,
    start: arb,
    stop: arb,
    tolerance: arb,
    *,
    within: bool,
) -> arb:
    def integrand(t: acb, analytic: bool) -> acb:  # noqa: FBT001  # flint's signature
        del analytic  # meromorphic: at a pole the ball is not finite by itself
        return f.curvature(t) * shifted_relu_gap(t, k, sigma, within=within)

    return acb.integral(integrand, start, stop, abs_tol=tolerance).real

"""Expected M-Loss of a gated node f(g) * u: SwiGLU, GEGLU, ReGLU and the bilinear."""

import numpy as np
from numpy.typing import ArrayLike

from theory.activations import Activation, Elementwise
from theory.analysis import resolve
from theory.gated.law import GatedLaw, gated_laws
from theory.gated.pair import gated_pair
from theory.gated.sampled import gated_sampled
from theory.many import Evaluation


def expected_gated_mloss(
    activation: str | Activation | Elementwise,
    k: ArrayLike,
    sigma: ArrayLike,
    *,
    k_up: ArrayLike | None = None,
    sigma_up: ArrayLike | None = None,
    correlation: float = 0.0,
    q: int = 2,
    weights: ArrayLike | None = None,
    cov: ArrayLike | None = None,
    rtol: float = 1e-3,
    seed: int = 0,
) -> Evaluation:
    r"""E | f(m_g) m_u - sum_i w_i f(g_i) u_i |, with its error.

    Gates g_i = g0 + a_i with g0 ~ U(-k, k), ups u_i = u0 + b_i with
    u0 ~ U(-k_up, k_up); m_g and m_u are their weighted means. The errors a and b are
    Gaussian with covariances sigma^2 cov and sigma_up^2 cov, and
    correlation * sigma * sigma_up * cov between them. The up's k and sigma default to
    the gate's, `weights` [q] to 1/q each, `cov` [q, q] to the identity. `activation`
    is f: "silu" for SwiGLU, "gelu" for GEGLU, "relu" for ReGLU, "identity" for the
    bilinear node. float64, broadcast over the four scales.

    Two sources are a quadrature whose error is near 1e-9 of the value whatever `rtol`
    asks. More are sampled until three standard errors are below rtol of the value;
    each point starts again from `seed`.

    Raises ValueError naming the argument where it is not of a law, and
    ArithmeticError, saying what was reached, where rtol was not.
    """
    if not 0 < rtol < 1:
        raise ValueError(f"rtol must lie between 0 and 1, got {rtol}")
    f = resolve(activation)
    shape, laws = gated_laws(
        k,
        sigma,
        k_up=k_up,
        sigma_up=sigma_up,
        correlation=correlation,
        q=q,
        weights=weights,
        cov=cov,
    )
    found = [_expected(f, law, rtol=rtol, seed=seed) for law in laws]
    value, error = np.array(found).T
    return Evaluation(value.reshape(shape), error.reshape(shape))


def _expected(
    f: Activation, law: GatedLaw, *, rtol: float, seed: int
) -> tuple[float, float]:
    if law.errors.jensen_variance == 0:
        return 0.0, 0.0
    if law.errors.q == 2:
        return gated_pair(f, law, rtol=rtol)
    return gated_sampled(f, law, rtol=rtol, seed=seed)

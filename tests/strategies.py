"""The domains that property tests draw from, each written once."""

import numpy as np
from hypothesis import strategies as st

EPS = float(np.finfo(np.float64).eps)

model_counts = st.integers(1, 64)
scales = st.floats(1e-6, 1e6)
ratios = st.floats(0.1, 1e8)  # k / sigma
slopes = st.floats(-2, 2)
seeds = st.integers(0, 2**32 - 1)


_few_models = st.integers(2, 8)


@st.composite
def error_laws(draw, counts=_few_models):
    """Weights [q] and a covariance [q, q], from independent to nearly one error."""
    q = draw(counts)
    rng = np.random.default_rng(draw(seeds))
    factor = rng.normal(size=(q, draw(st.integers(1, q))))
    shared = draw(st.sampled_from([0.0, 1.0, 30.0])) * rng.normal(size=factor.shape[1])
    return rng.dirichlet(np.ones(q)), (factor + shared) @ (factor + shared).T

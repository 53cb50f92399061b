"""The gated node as the tests of its parts call it."""

from hypothesis import strategies as st

from theory.gated import expected_gated_mloss

TIED = {"weights": [0.3, 0.7], "cov": [[1.0, -0.3], [-0.3, 2.0]]}
ONE_ERROR = {"weights": [0.3, 0.7], "cov": [[1.0, 2.0], [2.0, 4.0]]}
correlations = st.sampled_from([-1.0, -0.6, 0.0, 0.3, 0.95, 1.0])


def of(gate, k, sigma, k_up, sigma_up, correlation, **law):
    """The expectation by position, as the tables here list it."""
    ups = {"k_up": k_up, "sigma_up": sigma_up, "correlation": correlation}
    return expected_gated_mloss(gate, k, sigma, **ups, **law)

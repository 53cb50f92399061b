"""E[D] <= TV(f') V / (4k), over random piecewise-linear functions and laws."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import error_laws

from theory import Activation, expected_mloss, mloss_bound

PAIRS = error_laws(counts=st.just(2))


@st.composite
def polygons(draw):
    """A piecewise-linear function with one to four kinks, zero left of the first."""
    gaps = draw(st.lists(st.floats(0.05, 3), min_size=1, max_size=4))
    kinks = draw(st.floats(-4, 1)) + np.cumsum(gaps)
    jumps = draw(
        st.lists(
            st.floats(0.1, 2) | st.floats(-2, -0.1),
            min_size=len(kinks),
            max_size=len(kinks),
        )
    )
    slopes = np.array([0.0, *np.cumsum(jumps)])
    steps = np.array(jumps)
    return Activation(
        name="polygon",
        function=lambda x: np.maximum(x[..., None] - kinks, 0) @ steps,
        derivative=lambda x: slopes[np.searchsorted(kinks, x)],
        curvature=np.zeros_like,
        slopes=(0.0, float(slopes[-1])),
        reach=(float(kinks[0]), float(kinks[-1])),
        kinks=tuple(kinks.tolist()),
    )


wide = st.floats(0.2, 50)
errors = st.floats(0.02, 10)


@settings(max_examples=20)
@given(f=polygons(), law=PAIRS, k=wide, sigma=errors)
def test_polygons_stay_below_the_bound(f, law, k, sigma):
    weights, cov = law
    found = expected_mloss(f, k, sigma, weights=weights, cov=cov)
    bound = mloss_bound(f, k, sigma, weights=weights, cov=cov)
    # The quadrature is good to 1e-10 of E[D].
    assert found <= bound * (1 + 1e-10)


@settings(max_examples=20)
@given(
    name=st.sampled_from(["gelu", "silu", "mish", "tanh", "sigmoid", "hard_swish"]),
    law=PAIRS,
    k=wide,
    sigma=errors,
)
def test_smooth_activations_stay_below_the_bound(name, law, k, sigma):
    weights, cov = law
    found = expected_mloss(name, k, sigma, weights=weights, cov=cov)
    bound = mloss_bound(name, k, sigma, weights=weights, cov=cov)
    assert found <= bound * (1 + 1e-10)

"""Where a difference of f is all rounding, and must not be counted as a gap."""

import numpy as np
from numpy.testing import assert_allclose

from theory import Activation, expected_mloss, mloss_bound

UNEVEN = (0.00410654, 0.99589346)


def test_kinks_out_of_each_others_reach_meet_the_law():
    kinks, jumps = np.array([1.0, 2.0]), np.array([1.0, -0.5])
    slopes = np.array([0.0, *np.cumsum(jumps)])
    polygon = Activation(
        name="polygon",
        function=lambda x: np.maximum(x[..., None] - kinks, 0) @ jumps,
        derivative=lambda x: slopes[np.searchsorted(kinks, x)],
        curvature=np.zeros_like,
        slopes=(0.0, 0.5),
        reach=(1.0, 2.0),
        kinks=(1.0, 2.0),
    )
    # m follows the errors, which are 400 times narrower than the kinks are apart.
    cov = np.outer([-0.1257, 0.1321], [-0.1257, 0.1321])
    given = {"k": 3.0, "sigma": 0.02, "weights": UNEVEN, "cov": cov}
    found = expected_mloss(polygon, **given)
    assert_allclose(found, mloss_bound(polygon, **given), rtol=1e-11)


def test_a_tail_that_is_straight_adds_nothing():
    k = np.array([33.0, 60.0])
    found = k * expected_mloss("silu", k, 0.03, weights=UNEVEN)
    # SiLU'' is about x e^-x: what lies past 33 is 1e-13 of the whole.
    assert_allclose(found[1], found[0], rtol=1e-10)

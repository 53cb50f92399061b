"""The certified curve beside the root of S, and that S has no other root."""

import numpy as np
import pytest
from flint import arb, ctx
from scipy.integrate import quad

from theory.certified import root
from theory.certified.difference import difference
from theory.certified.root import root_curve
from theory.certified.smooth import GELU, QUICK_GELU, SILU

every_smooth = pytest.mark.parametrize(
    "f", [GELU, QUICK_GELU, SILU], ids=["gelu", "quick_gelu", "silu"]
)
INTERVALS = [(0.0, 0.01), (0.3, 0.5), (1.0, 1.5), (3.0, 4.0), (30.0, 40.0)]


@pytest.fixture(autouse=True)
def _precision():
    with ctx.workprec(128):
        yield


@every_smooth
@pytest.mark.parametrize(("start", "stop"), INTERVALS)
def test_curve_is_near_the_root_all_along(f, start, stop):
    curve = root_curve(f, arb(start), arb(stop), limit=arb(1e-12))
    assert curve is not None
    assert curve.sliver < 1e-12
    for u in np.linspace(start, stop, 23)[1:]:
        u = arb(float(u))
        offset = curve.offset(u)
        assert curve.root(u).overlaps(offset + u)
        # A sliver of 1e-12 leaves the curve within about its square root.
        assert difference(f.excess, offset - arb(1e-4), u) > 0
        assert difference(f.excess, offset + arb(1e-4), u) < 0


@every_smooth
def test_sliver_bounds_the_integral_between_curve_and_root(f):
    # A coarse limit, so that curve and root are apart in float64.
    u = arb(0.37)
    curve = root_curve(f, arb(0), arb(1) / 2, limit=arb(1e-3))
    assert curve is not None
    low = high = curve.offset(u).mid()
    low, high = low - arb(0.01), high + arb(0.01)
    for _ in range(80):
        middle = ((low + high) / 2).mid()
        if difference(f.excess, middle, u) > 0:
            low = middle
        else:
            high = middle
    ends = sorted([float(low), float(curve.offset(u))])
    between, _ = quad(lambda x: abs(float(difference(f.excess, arb(x), u))), *ends)
    assert between <= curve.sliver * u * u


@every_smooth
@pytest.mark.parametrize("u", [0.01, 0.5, 1.5, 3.0, 10.0])
def test_difference_changes_sign_once(f, u):
    points = np.linspace(0, u + 3 * float(f.inflection()), 601)
    signs = [float(difference(f.excess, arb(m) - u, arb(u))) > 0 for m in points]
    assert signs[0]
    assert not signs[-1]
    assert np.count_nonzero(np.diff(signs)) == 1


@every_smooth
def test_an_interval_too_long_gives_no_curve(f):
    assert root_curve(f, arb(0), arb(20), limit=arb(1e-12)) is None


def test_no_curve_where_the_root_may_leave_the_known_slope(monkeypatch):
    interval = arb(0), arb(1) / 2
    assert root_curve(GELU, *interval, limit=arb(1e-6)) is not None
    monkeypatch.setattr(root, "_margin", lambda f: f.reach() * arb(1e-9))
    assert root_curve(GELU, *interval, limit=arb(1e-6)) is None

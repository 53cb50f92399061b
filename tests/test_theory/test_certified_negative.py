"""Every truncation of E[S^-] is bounded: made coarse, each still holds the rest."""

import pytest
from flint import arb, ctx

from theory.certified import negative
from theory.certified.negative import negative_part
from theory.certified.root import root_curve
from theory.certified.smooth import GELU, SILU

every_smooth = pytest.mark.parametrize("f", [GELU, SILU], ids=["gelu", "silu"])
K, SIGMA = arb(5), arb(1)


@pytest.fixture(autouse=True)
def _precision():
    with ctx.workprec(128):
        yield


def fine(f, end=50):
    return negative_part(f, K, SIGMA, end=arb(end), tolerance=arb(1e-12))


def assert_encloses(coarse, found):
    """The coarse ball holds the fine one and is much wider."""
    assert coarse.contains(found)
    assert coarse.rad() > 100 * found.rad()


@every_smooth
def test_errors_beyond_the_reach_are_enclosed(f, monkeypatch):
    whole = fine(f)
    monkeypatch.setattr(negative, "_reach", lambda s, _: (2 * s).mid())
    assert_encloses(fine(f), whole)


@every_smooth
def test_the_tail_beyond_the_end_is_enclosed(f):
    assert_encloses(fine(f, end=4), fine(f))


@every_smooth
def test_what_lies_between_curve_and_root_is_enclosed(f, monkeypatch):
    whole = fine(f)

    def coarse(f, start, stop, *, limit):
        del limit
        return root_curve(f, start, stop, limit=arb(0.1))

    monkeypatch.setattr(negative, "root_curve", coarse)
    assert_encloses(fine(f), whole)


@every_smooth
def test_a_root_that_cannot_be_followed_is_an_error(f, monkeypatch):
    monkeypatch.setattr(negative, "root_curve", lambda *_, **__: None)
    with pytest.raises(ArithmeticError, match="the root of S is lost"):
        fine(f)

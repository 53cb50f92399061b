import pytest

from paper_checks.claims import CLAIMS
from paper_checks.record import Finding, How, Verdict
from paper_checks.registry import Registry, UnknownClaimError


def confirmed():
    return Finding(Verdict.CONFIRMED, "found", "none", how=(How.ARITHMETIC,))


def seeded(*, seed):
    return Finding(Verdict.CONFIRMED, str(seed), "none", how=(How.SIMULATED,))


def registered(*names):
    registry = Registry()
    for name in names:
        registry.claim(name, where="w", states="s", recorded="confirmed")(confirmed)
    return registry


def test_an_id_is_given_once():
    with pytest.raises(ValueError, match="'a' is taken"):
        registered("a", "a")


def test_a_recorded_verdict_is_one_of_the_four():
    with pytest.raises(ValueError, match="perhaps"):
        Registry().claim("a", where="w", states="s", recorded="perhaps")(confirmed)


def test_checks_are_seeded_by_their_signature():
    registry = registered("a")
    registry.claim("b", where="w", states="s", recorded="confirmed")(seeded)
    assert [claim.seeded for claim in registry] == [False, True]


def test_selection_keeps_the_order_of_registration():
    registry = registered("a", "b", "c")
    assert [claim.id for claim in registry.select(["c", "a"])] == ["a", "c"]
    assert len(registry.select()) == 3


def test_an_unknown_id_lists_near_ones():
    with pytest.raises(UnknownClaimError, match=r"'relo'.*relu"):
        registered("relu", "gelu-far-away").select(["relo"])


def test_the_paper_has_the_public_claims():
    ids = [claim.id for claim in CLAIMS]
    assert len(ids) == len(set(ids))
    assert {
        "expected-relu",
        "expected-leaky-relu",
        "expected-gelu",
        "leaky-relu-ratio",
    } <= set(ids)


def test_claims_come_in_the_order_of_the_paper():
    ids = [claim.id for claim in CLAIMS]
    order = ["remark-2", "expected-relu", "cost-of-one-layer", "merging-time"]
    assert sorted(order, key=ids.index) == order

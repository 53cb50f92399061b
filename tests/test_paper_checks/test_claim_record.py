import pytest

from paper_checks.record import Checked, Claim, Finding, How, Verdict


def finding(verdict, **changes):
    return Finding(verdict, "found", "none", how=(How.ARITHMETIC,), **changes)


@pytest.mark.parametrize("verdict", [Verdict.CORRECTED, Verdict.REFUTED])
def test_a_claim_judged_wrong_says_what_is_true(verdict):
    with pytest.raises(ValueError, match="needs truth"):
        finding(verdict)
    assert finding(verdict, truth="It is so.").truth == "It is so."


def test_an_unchecked_claim_gives_its_reason():
    with pytest.raises(ValueError, match="needs a reason"):
        Finding(Verdict.NOT_CHECKABLE, "-", "-")


def test_a_verdict_names_its_evidence():
    with pytest.raises(ValueError, match="needs how"):
        Finding(Verdict.CONFIRMED, "found", "none")


@pytest.mark.parametrize("name", ["", "Expected", "two words", "-a", "a--b"])
def test_an_id_is_words_and_hyphens(name):
    with pytest.raises(ValueError, match="lower-case"):
        Claim(name, "where", "states", Verdict.CONFIRMED, check=finding, seeded=False)


@pytest.mark.parametrize("seeded", [True, False])
def test_a_check_gets_the_seed_if_it_takes_one(seeded):
    def check(**given):
        return finding(Verdict.CONFIRMED, numbers=given)

    claim = Claim("a", "w", "s", Verdict.CONFIRMED, check=check, seeded=seeded)
    assert claim.examine(seed=7).finding.numbers == ({"seed": 7} if seeded else {})


def test_a_proof_that_fails_leaves_its_claim_undecided():
    def check():
        raise ArithmeticError("could not prove that 1 < 1")

    claim = Claim("a", "w", "s", Verdict.CONFIRMED, check=check, seeded=False)
    checked = claim.examine(seed=0)
    assert not checked.as_recorded
    assert checked.finding.reason == "a proof failed: could not prove that 1 < 1"


def test_the_json_record_has_the_public_keys():
    claim = Claim("a", "w", "s", Verdict.CONFIRMED, check=finding, seeded=False)
    record = Checked(claim, finding(Verdict.REFUTED, truth="no")).as_json()
    public = {"id", "where", "states", "found", "uncertainty", "how", "verdict"}
    assert public <= set(record)
    assert record["verdict"] == "refuted"
    assert record["recorded"] == "confirmed"
    assert record["how"] == ["arithmetic"]

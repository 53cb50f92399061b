import pytest

from paper_checks.console import summary
from paper_checks.provenance import Provenance
from paper_checks.record import Checked, Claim, Finding, How, Verdict
from paper_checks.report import number, report_html

PROVENANCE = Provenance("python -m paper_checks", seed=0, seconds=12.3)


def checked(verdict, *, recorded="confirmed", **texts):
    truth = "Something <else> & more." if verdict != "confirmed" else ""
    claim = Claim(
        "a-claim",
        texts.get("where", "Section 1"),
        texts.get("states", "It is so"),
        Verdict(recorded),
        check=lambda: None,
        seeded=False,
    )
    how = (How.MEASURED,)
    return Checked(claim, Finding(Verdict(verdict), "found", "+-1", how, truth=truth))


def test_text_of_claims_is_escaped():
    page = report_html(
        [checked("refuted", states="<script>alert(1)</script>")],
        figures=[],
        provenance=PROVENANCE,
    )
    assert "<script" not in page
    assert "Something &lt;else&gt; &amp; more." in page


def test_a_verdict_that_changed_is_shown_first():
    page = report_html([checked("refuted")], figures=[], provenance=PROVENANCE)
    assert "recorded as confirmed, now refuted" in page
    assert page.index("Not as recorded") < page.index("In short")
    healthy = report_html([checked("confirmed")], figures=[], provenance=PROVENANCE)
    assert "Not as recorded" not in healthy


def test_the_page_says_how_it_was_made():
    page = report_html([checked("confirmed")], figures=[], provenance=PROVENANCE)
    for version in PROVENANCE.versions().values():
        assert version in page
    assert "12 s" in page


def test_the_summary_counts_in_words():
    lines = summary([checked("confirmed"), checked("refuted")]).splitlines()
    assert lines[0] == "2 claims: 1 confirmed, 1 refuted."
    assert lines[1].startswith("NOT AS RECORDED: a-claim is recorded as confirmed")


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (1234567, "1,234,567"), (0.125, "0.125"), ([1, 0.5], "1, 0.5")],
)
def test_numbers_are_short(value, text):
    assert number(value) == text

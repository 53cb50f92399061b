"""What the README shows is what a reader gets."""

import re
from collections import Counter
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from paper_checks.claims import CLAIMS

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", README, re.DOTALL).group(1)


@pytest.mark.usefixtures("digits")
def test_the_example_prints_what_it_says():
    printed = StringIO()
    with redirect_stdout(printed):
        exec(block("python"), {})  # noqa: S102  # the README's own code
    assert printed.getvalue() == block("text")


def test_the_verdicts_are_the_recorded_ones():
    listed = dict(re.findall(r"^\| `([a-z0-9-]+)` \| ([a-z ]+) \|", README, re.M))
    recorded = {claim.id: str(claim.recorded) for claim in CLAIMS}
    wrong = {"corrected", "refuted"}
    assert listed == {name: v for name, v in recorded.items() if v in wrong}


def test_the_counts_are_those_of_the_register():
    counts = Counter(str(claim.recorded) for claim in CLAIMS)
    sentence = f"{len(CLAIMS)} claims: " + ", ".join(
        f"{counts[verdict]} {verdict}"
        for verdict in ("confirmed", "corrected", "refuted", "not checkable here")
    )
    assert sentence in README

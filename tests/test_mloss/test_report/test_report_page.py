import math
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from report_scores import FIELDS, four_layers, score, site

from mloss import Gap
from mloss.report import report_html, write_report
from mloss.report.numbers import with_error

GAP = Gap(mean=1.0, stderr=0.02, relative=0.1, samples=128)
VOID = {"meta", "img"}


class Page(HTMLParser):
    """The cells of a page's tables, its links, and whether its elements are closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.rows, self.sources = set(), [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data.strip()


def page(scored, **options):
    return Page(report_html(scored, **{"provenance": {}, **options}))


def test_the_page_is_whole_and_fetches_nothing():
    found = page(four_layers(), gap=GAP)
    assert found.open == []
    assert found.tags.isdisjoint({"script", "link", "iframe"})
    assert len(found.sources) == 3
    assert all(s.startswith("data:image/svg+xml;base64,") for s in found.sources)


def test_the_table_shows_the_numbers_of_the_score():
    scored = four_layers()
    rows = {row[0]: row for row in page(scored).rows if len(row) == 11}
    for place, one in enumerate(scored.sites):
        expected = with_error(one.layer, one.layer_stderr).replace("+-", "±")
        assert rows[str(place)][3] == expected
        assert rows[str(place)][6:] == ["2.00", "3.00", "1.50", "-", "1"]


def test_the_verdict_comes_first():
    text = report_html(four_layers(), provenance={}, gap=GAP)
    assert 0 < text.index('<section class="verdict apart">') < text.index("<table>")
    assert "10\N{NARROW NO-BREAK SPACE}% ± 0.2" in text


def test_names_and_provenance_are_escaped():
    text = report_html(
        score(site("<b>.one"), site("<i>.two")),
        provenance={"base": "<script>alert(1)</script>", "sources": ["a&b", "c"]},
    )
    assert "<script" not in text
    assert "<i>" not in text
    assert "&lt;b&gt;.one" in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "a&amp;b, c" in text


def test_the_header_says_what_was_scored():
    origin = {"base": "base-model", "sources": ["a", "b"]}
    text = report_html(four_layers(), provenance=origin)
    header = " ".join(text[text.index("<h1>") : text.index("<section")].split())
    assert "128 unlabelled samples, 4 layers, 2 sources of" in header
    assert "<code>base-model</code>" in header


def test_an_explanation_of_the_gap_is_shown_where_there_is_one():
    text = report_html(
        four_layers(), provenance={}, gap=GAP, explanation="62 % of it\nis <here>."
    )
    assert (
        "<p>62\N{NARROW NO-BREAK SPACE}% of it</p>\n\n<p>is &lt;here&gt;.</p>" in text
    )
    assert "Where the gap comes from" in text
    bare = report_html(four_layers(), provenance={}, gap=GAP)
    assert "Where the gap comes from" not in bare


@pytest.mark.parametrize(
    "scored",
    [
        score(site("only")),
        score(site("only", node=(0.0, 0.0, 0.0), relative=0.0)),
        score(site("a"), site("none", node=(0.0, 0.0), relative=0.0)),
        score(site(error=math.inf), samples=1),
        score(replace(site(), **dict.fromkeys(FIELDS))),
        score(site("wide", node=[0.1] * 700), site("narrow", node=(0.2,))),
    ],
    ids=["one site", "no loss", "a layer without", "one sample", "no theory", "ragged"],
)
def test_unusual_scores_make_whole_pages(scored):
    found = page(scored)
    assert found.open == []
    assert not {"nan", "inf", "None"} & {cell for row in found.rows for cell in row}


def test_the_report_is_written_whole(tmp_path):
    path = tmp_path / "report.html"
    write_report(four_layers(), path, provenance={"seed": 7}, gap=GAP, worst=2)
    text = path.read_text(encoding="utf-8")
    assert text == report_html(four_layers(), provenance={"seed": 7}, gap=GAP, worst=2)
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]

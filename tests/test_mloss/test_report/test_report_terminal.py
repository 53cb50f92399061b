import io
import math
from dataclasses import replace

import pytest
from report_scores import FIELDS, four_layers, score, site
from rich.console import Console

from mloss import Gap
from mloss.report import show
from mloss.report.columns import WIDTH, page

GAP = Gap(mean=1.0, stderr=0.02, relative=0.1, samples=128)


def shown(scored, *, width=WIDTH, **options):
    console = Console(file=io.StringIO(), width=width)
    show(console, scored, **options)
    return console.file.getvalue()


def test_the_numbers_of_every_layer_are_shown():
    scored = four_layers()
    lines = shown(scored, gap=GAP).splitlines()
    for place, one in enumerate(scored.sites):
        row = next(line for line in lines if line.startswith(f"{place} "))
        mloss = f"{one.layer:#.3g} +- {one.layer_stderr:.1g}"
        assert mloss in row
        assert "1.0 %" in row
        assert row.split()[-4:] == ["3.00", "1.50", "-", "1"]


def test_verdict_worst_nodes_and_agreement_are_shown():
    text = shown(four_layers(), gap=GAP, worst=3)
    assert text.startswith("Verdict: apart\nThe merge is apart from its ensemble")
    assert text.count("0.160 +- 0.003") == 1
    assert "1.00; 1.50 x/ 1.00" in text
    assert "Layers are named by what the * of blocks.*.fc1 stands for." in text


def test_an_explanation_follows_the_verdict():
    text = shown(four_layers(), gap=GAP, explanation="Mostly [b]interaction[/b].")
    assert 0 < text.index("Mostly [b]interaction[/b].") < text.index("M-Loss by layer")


def test_the_tables_fit_and_a_pipe_gets_ascii_without_colour():
    wide = site("encoder.layer.0.a.very.long.name.of.a.layer", node=(1e-5,) * 9999)
    text = shown(score(wide, site("head", relative=3e-5), samples=7), gap=GAP)
    assert text.isascii()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_a_narrow_terminal_shows_whole_numbers():
    text = shown(four_layers(), width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "0.179 +- 0.004" in text
    assert "predicted over measured" not in text.split("Worst")[0]


def test_a_name_is_no_markup():
    lines = shown(score(site("[b]x[/b]"))).splitlines()
    # Once by layer, three worst nodes, once in the agreement.
    assert sum(line.startswith("[b]x[/b] ") for line in lines) == 5


@pytest.mark.parametrize(
    "scored",
    [
        score(site(node=(0.0, 0.0), relative=0.0)),
        score(site(error=math.inf), samples=1),
        score(replace(site(), **dict.fromkeys(FIELDS))),
    ],
    ids=["no loss", "one sample", "no theory"],
)
def test_what_is_missing_is_a_dash_or_a_question_mark(scored):
    words = shown(scored).split()
    assert not {"nan", "inf", "None"} & set(words)


def test_a_pipe_is_as_wide_as_the_tables():
    assert page().width >= WIDTH

"""The report as one HTML page that holds everything it shows."""

from base64 import b64encode
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from figures.rendering import rendered
from mloss.agreement import PREDICTIONS, agreements
from mloss.gap import Gap
from mloss.report.agreement_rows import agreement_rows
from mloss.report.beyond import Beyond, tables
from mloss.report.drawings import loss_map, prediction_clouds
from mloss.report.layer_names import layer_names
from mloss.report.layers import layer_rows
from mloss.report.numbers import correlation, factor, percent, short, with_error
from mloss.report.record import Provenance, without_infinities
from mloss.report.verdict import verdict
from mloss.report.worst_nodes import worst_nodes
from mloss.score import Score
from mloss.whole_file import write_whole

# Points of a scatter plot: more take long to draw and hide each other.
_MOST_POINTS = 20_000


def write_report(
    score: Score,
    path: Path,
    *,
    provenance: Provenance,
    gap: Gap | None = None,
    explanation: str | None = None,
    beyond: Beyond | None = None,
    worst: int = 20,
) -> None:
    """Write `report_html` to a file, whole or not at all.

    Raises OSError where the file cannot be written.
    """
    page = report_html(
        score,
        provenance=provenance,
        gap=gap,
        explanation=explanation,
        beyond=beyond,
        worst=worst,
    )
    write_whole(path, page.encode())


def report_html(
    score: Score,
    *,
    provenance: Provenance,
    gap: Gap | None = None,
    explanation: str | None = None,
    beyond: Beyond | None = None,
    worst: int = 20,
) -> str:
    """Verdict, layers, figures, worst nodes, agreement and provenance on one page.

    `explanation` says where the gap comes from (`mloss.curvature.in_words`), `beyond`
    what attention and normalisations add.
    Nothing on the page is fetched and nothing on it runs.
    """
    found = agreements(score)
    step = -(-sum(len(site.node) for site in score.sites) // _MOST_POINTS)
    clouds = prediction_clouds(score, step=step)
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters |= {
        "correlation": correlation,
        "factor": factor,
        "percent": percent,
        "short": short,
        "typeset": _typeset,
    }
    environment.globals["with_error"] = with_error
    template = files(__package__).joinpath("report.html.jinja")
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        verdict=verdict(score, gap=gap),
        explanation=explanation,
        score=score,
        rows=layer_rows(score, found),
        predictions=list(PREDICTIONS),
        names=layer_names([site.layer_name for site in score.sites]),
        maps=[_data_uri(loss_map(score, by_loss=order)) for order in (False, True)],
        clouds=None if clouds is None else _data_uri(clouds),
        step=step,
        worst=worst_nodes(score, count=worst),
        agreement=agreement_rows(found),
        beyond=tables(beyond) if beyond else [],
        provenance=without_infinities(provenance),
    )


def _data_uri(figure: Figure) -> str:
    """An SVG image as an address that holds the image itself."""
    image = b64encode(rendered(figure, kind="svg")).decode()
    return f"data:image/svg+xml;base64,{image}"


def _typeset(text: str) -> str:
    """The text with the signs and spaces that ASCII lacks."""
    signs = {
        "+-": "±",
        " %": "\N{NARROW NO-BREAK SPACE}%",
        "M-Loss": "M\N{NON-BREAKING HYPHEN}Loss",
    }
    for plain, sign in signs.items():
        text = text.replace(plain, sign)
    return text

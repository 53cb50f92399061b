"""The report: one self-contained HTML page."""

from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from paper_checks.gallery import Drawn
from paper_checks.provenance import Provenance
from paper_checks.record import Checked, Number, Verdict


def report_html(
    checked: Sequence[Checked], *, figures: Sequence[Drawn], provenance: Provenance
) -> str:
    """Render claims, figures and provenance; nothing on the page is fetched."""
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters["slug"] = slug
    environment.filters["number"] = number
    template = files(__package__).joinpath("report.html.jinja")
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        checked=checked,
        counts=Counter(one.finding.verdict for one in checked),
        verdicts=list(Verdict),
        wrong=[one for one in checked if one.finding.truth],
        changed=[one for one in checked if not one.as_recorded],
        figures=[(figure, data_uri(figure.images["svg"])) for figure in figures],
        provenance=provenance,
    )


def data_uri(svg: bytes) -> str:
    """An SVG image as an address that holds the image itself."""
    return f"data:image/svg+xml;base64,{b64encode(svg).decode()}"


def slug(verdict: Verdict) -> str:
    """The verdict as a word for CSS."""
    return verdict.replace(" ", "-")


def number(value: Number) -> str:
    """A number or a list of them to four digits."""
    if isinstance(value, list):
        return ", ".join(map(number, value))
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"

"""The report for a reader at a terminal or in a pipe."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mloss.agreement import PREDICTIONS, Agreement, agreements
from mloss.gap import Gap
from mloss.report.agreement_rows import AgreementRow, agreement_rows
from mloss.report.beyond import Beyond, PlainTable, tables
from mloss.report.columns import WIDTH, columns
from mloss.report.layer_names import layer_names
from mloss.report.layers import LayerRow, layer_rows
from mloss.report.numbers import (
    MISSING,
    correlation,
    factor,
    percent,
    short,
    with_error,
)
from mloss.report.verdict import Verdict, verdict
from mloss.report.worst_nodes import WorstNode, worst_nodes
from mloss.score import Score

STYLES = {
    **dict.fromkeys(("close", "small"), "bold green"),
    **dict.fromkeys(("apart", "moderate", "unclear"), "bold yellow"),
    **dict.fromkeys(("far", "large"), "bold red"),
}
LAYERS = "M-Loss by layer: mean, part of the output (Eq. 6), share, worst node"
OVER = "; predicted over measured"
WORST = (
    "Worst nodes: quantiles over samples, the density prediction, "
    "times the median of the layer"
)
AGREEMENT = (
    "Predicted against measured node M-Loss: rank correlation; predicted over measured "
    "x/ spread"
)
# What the narrow columns of ratios hold, by name of the prediction.
RATIOS = ("uniform", "density", "data-free")


def show(
    console: Console,
    score: Score,
    *,
    gap: Gap | None = None,
    explanation: str | None = None,
    beyond: Beyond | None = None,
    worst: int = 10,
) -> None:
    """Print the verdict, the layers, the `worst` nodes, the agreement and the rest.

    In ASCII but for the names of layers, so that a pipe of any encoding takes it.
    """
    found = agreements(score)
    names = layer_names([site.layer_name for site in score.sites])
    console.print(_judged(verdict(score, gap=gap)))
    if explanation:
        console.print(Text(f"{explanation}\n"))
    for pattern in names.patterns:
        console.print(Text(f"Layers are named by what the * of {pattern} stands for."))
    ratios = RATIOS if console.width >= WIDTH else ()
    titled = {
        LAYERS + (OVER if ratios else ""): _layers(
            layer_rows(score, found), names.short, ratios
        ),
        WORST: _worst(worst_nodes(score, count=worst), names.short),
        AGREEMENT: _agreement(agreement_rows(found), names.short),
    }
    for title, table in titled.items():
        if table.row_count:
            console.print(Text(f"\n{title}", style="bold"), table)
    for plain in tables(beyond) if beyond else ():
        console.print(Text(f"\n{plain.title}", style="bold"), _plain(plain))
        console.print(Text(plain.note, style="dim"))


def _judged(judged: Verdict) -> Text:
    text = Text().append("Verdict: ", style="bold")
    text.append(f"{judged.level}\n", style=STYLES[judged.level])
    text.append(f"{judged.sentence}\n\n")
    for line in judged.basis:
        text.append(f"{line}\n", style="dim")
    return text


def _layers(
    rows: Sequence[LayerRow], shown: Mapping[str, str], ratios: Sequence[str]
) -> Table:
    over = (name.replace("-", "-\n") for name in ratios)
    numbers = ("nodes", "M-Loss", "relative", "share", *over, "worst")
    table = columns(("layer", "activation"), numbers)
    for row in rows:
        table.add_row(
            Text(shown[row.layer]),
            Text(row.activation),
            str(row.nodes),
            with_error(row.mloss, row.stderr),
            percent(row.relative),
            percent(row.share),
            *(factor(row.ratios[name]) for name in ratios),
            str(row.worst_node),
        )
    return table


def _worst(nodes: Sequence[WorstNode], shown: Mapping[str, str]) -> Table:
    numbers = ("node", "M-Loss", "5 %", "95 %", "density", "x median")
    table = columns(("layer",), numbers)
    for node in nodes:
        table.add_row(
            Text(shown[node.layer]),
            str(node.node),
            with_error(node.mloss, node.stderr),
            short(node.q05),
            short(node.q95),
            short(node.density_prediction),
            factor(node.times_median),
        )
    return table


def _agreement(rows: Sequence[AgreementRow], shown: Mapping[str, str]) -> Table:
    table = columns(("layer",), tuple(PREDICTIONS), fold=True)
    for row in rows:
        layer = "all" if row.layer is None else shown[row.layer]
        table.add_row(Text(layer), *map(_in_short, row.cells))
    return table


def _plain(plain: PlainTable) -> Table:
    table = columns(plain.header[:1], plain.header[1:])
    for row in plain.rows:
        table.add_row(*map(Text, row))
    return table


def _in_short(found: Agreement | None) -> str:
    if found is None or found.ratio is None:
        return MISSING
    rank = correlation(found.rank_correlation)
    return f"{rank}; {factor(found.ratio)} x/ {factor(found.spread)}"

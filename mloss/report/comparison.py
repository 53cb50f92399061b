"""A comparison of merges for a reader at a terminal or in a pipe, and for JSON."""

from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mloss.compare import Comparison, Interval, Lead, Outcome
from mloss.report.columns import columns
from mloss.report.numbers import percent, short

READS = {
    "classes": "how often a merge names the class that the task's own expert names; "
    "divergence: KL from the expert's classes to the merge's, in nats",
    "neighbours": "how often a sample's nearest neighbour among its task's samples, by "
    "cosine, is the one it has under the task's own expert; divergence: 1 - the cosine "
    "of the two embeddings",
}
GAP = (
    "The gap, a merge's distance from the sources' ensemble over the ensemble's size, "
    "is another promise than agreement and does not rank these merges."
)
# What is known of the order, from docs/choosing.md.
ORDER = {
    "classes": "On 15 pools of merges of one small digits network, with 128 samples a "
    "task, agreement ordered merges as accuracy did (rank correlation 0.96 to 1.00), "
    "less surely with fewer samples; the gap did so or did the opposite (-0.36 to "
    "0.96). Other models may differ.",
    "neighbours": "How well agreement of neighbours orders merges by accuracy has not "
    "been measured.",
}
# Merges whose agreement is shown task by task.
_BY_TASK = 10


def show(console: Console, found: Comparison, *, tasks: Sequence[str]) -> None:
    """Print the merges best first, the best ones task by task, and what is certain."""
    reads = found.best.agreements[0].reads
    console.print(Text(f"Agreement: {READS[reads]}."))
    console.print(Text(f"{GAP} {ORDER[reads]}"), _ranking(found))
    if len(tasks) > 1:
        title = "\nAgreement with each task's expert"
        console.print(Text(title, style="bold"), _by_task(found, tasks))
    console.print(Text(f"\n{certainty(found)}", style="bold yellow"))
    for name, reason in found.refused.items():
        console.print(Text(f"Not compared: {name}: {reason}"))


def certainty(found: Comparison) -> str:
    """Whether the samples tell the leader from the others, in sentences."""
    samples, first = found.samples, found.best.name
    level = [lead for lead in found.leads if not lead.separated]
    if not found.leads:
        return f"{first} is the only merge."
    if not level:
        return f"{first} leads by more than the noise of {samples} samples."
    merges = "merge is" if len(level) == 1 else "merges are"
    return (
        f"{first} leads, but {len(level)} more {merges} within the noise of {samples} "
        f"samples: {', '.join(lead.over for lead in level)}. {_needed(level[0])}"
    )


def _needed(lead: Lead) -> str:
    if lead.more is None:
        return f"{lead.over} agrees with the experts as often."
    return (
        f"To tell it from {lead.over} takes about {lead.more:,} samples more, if the "
        f"lead of {percent(lead.difference)} is real."
    )


def as_json(found: Comparison, *, tasks: Sequence[str]) -> dict[str, object]:
    """The numbers as plain values; intervals as [low, high]."""
    return {
        "reads": found.best.agreements[0].reads,
        "samples": found.samples,
        "merges": [_values(one, tasks) for one in found.outcomes],
        "leads": [asdict(lead) for lead in found.leads],
        "certainty": certainty(found),
        "refused": dict(found.refused),
    }


def _values(one: Outcome, tasks: Sequence[str]) -> dict[str, object]:
    made = one.candidate
    return {
        "name": one.name,
        "method": None if made is None else made.method,
        "options": {} if made is None else dict(made.options),
        **_rate(one.agreement),
        "divergence": one.divergence,
        "gap": asdict(one.gap),
        "tasks": [
            {
                "task": task,
                "samples": len(each.agrees),
                **_rate(each.rate),
                "divergence": each.mean_divergence,
            }
            for task, each in zip(tasks, one.agreements, strict=True)
        ],
    }


def _rate(rate: Interval) -> dict[str, object]:
    return {"agreement": rate.value, "interval": [rate.low, rate.high]}


def _ranking(found: Comparison) -> Table:
    table = columns(("merge",), ("agreement", "95 %", "divergence", "gap"))
    for one in found.outcomes:
        rate = one.agreement
        table.add_row(
            Text(one.name),
            _points(rate.value),
            f"{_points(rate.low)} to {_points(rate.high)}",
            short(one.divergence),
            percent(one.gap.relative),
        )
    return table


def _by_task(found: Comparison, tasks: Sequence[str]) -> Table:
    table = columns(("merge",), tasks, fold=True)
    for one in found.outcomes[:_BY_TASK]:
        rates = (_points(each.rate.value) for each in one.agreements)
        table.add_row(Text(one.name), *rates)
    return table


def _points(share: float) -> str:
    """Per cent with one digit after the point."""
    return f"{100 * share:.1f}"

"""The table of claims for a reader at a terminal or in a pipe."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from paper_checks.record import Checked, Verdict

Item = TypeVar("Item")

STYLES = {
    Verdict.CONFIRMED: "green",
    Verdict.CORRECTED: "yellow",
    Verdict.REFUTED: "red",
    Verdict.NOT_CHECKABLE: "dim",
}
# Five columns need this much; where there is less, claims are printed one by one.
TABLE_WIDTH = 120


def show(console: Console, checked: Sequence[Checked]) -> None:
    """Print the claims, then what is true instead, then the counts."""
    wide = console.width >= TABLE_WIDTH
    console.print(_table(checked) if wide else _paragraphs(checked))
    console.print(_corrections(checked))
    console.print(Text(summary(checked)))


def summary(checked: Sequence[Checked]) -> str:
    """Count the verdicts in words, and name those that are not the recorded ones."""
    counts = Counter(one.finding.verdict for one in checked)
    parts = [f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict]]
    noun = "claim" if len(checked) == 1 else "claims"
    lines = [f"{len(checked)} {noun}: {', '.join(parts)}."]
    lines += [
        f"NOT AS RECORDED: {one.claim.id} is recorded as {one.claim.recorded} and is "
        f"now {one.finding.verdict}."
        for one in checked
        if not one.as_recorded
    ]
    if len(lines) == 1:
        lines.append("Every verdict is the recorded one.")
    return "\n".join(lines)


def progress(items: Sequence[Item], name: Callable[[Item], str]) -> Iterator[Item]:
    """The items in turn, named and counted on standard error where that is a terminal.

    The bar moves between items only, so that an item may show a bar of its own.
    """
    console = Console(stderr=True)
    with Progress(
        console=console,
        auto_refresh=False,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=len(items))
        for item in items:
            bar.update(task, description=name(item), refresh=True)
            yield item
            bar.advance(task)


def page() -> Console:
    """Standard output, as wide as the terminal; in a pipe wide enough for the table."""
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, TABLE_WIDTH)
    return console


def _table(checked: Sequence[Checked]) -> Table:
    # ASCII, so that a pipe of any encoding takes it.
    table = Table(box=box.ASCII2, show_lines=True, expand=True)
    ids = max((len(one.claim.id) for one in checked), default=0)
    table.add_column("claim", width=ids)
    table.add_column("the paper states", ratio=4)
    table.add_column("found", ratio=6)
    table.add_column("uncertainty", ratio=3)
    table.add_column("verdict", width=len("confirmed"))
    for one in checked:
        name = Text(one.claim.id, style="bold").append(
            f"\n{one.claim.where}", style="not bold"
        )
        table.add_row(
            name,
            Text(one.claim.states),
            Text(one.finding.found),
            Text(one.finding.uncertainty),
            _verdict(one),
        )
    return table


def _paragraphs(checked: Sequence[Checked]) -> Text:
    text = Text()
    for one in checked:
        text.append(f"{one.claim.id} ", style="bold")
        text.append(f"({one.claim.where}): ").append_text(_verdict(one))
        text.append(f"\n  states: {one.claim.states}\n  found: {one.finding.found}")
        text.append(f"\n  uncertainty: {one.finding.uncertainty}\n\n")
    return text


def _verdict(one: Checked) -> Text:
    return Text(one.finding.verdict, style=STYLES[one.finding.verdict])


def _corrections(checked: Sequence[Checked]) -> Text:
    """What is true instead of corrected and refuted claims, and what was not done."""
    text = Text()
    for title, attribute in (("Instead:", "truth"), ("Not checked:", "reason")):
        notes = [(one.claim.id, getattr(one.finding, attribute)) for one in checked]
        if any(note for _, note in notes):
            text.append(f"{title}\n", style="bold")
        for name, note in notes:
            if note:
                text.append(f"- {name}: {note}\n")
    return text

"""A progress bar on a terminal, and silence in a pipe."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, track

Item = TypeVar("Item")


def tracked(
    items: Iterable[Item], description: str, *, total: int | None = None
) -> Iterator[Item]:
    """The items in turn, counted on standard error where that is a terminal."""
    console = Console(stderr=True)
    yield from track(
        items,
        description,
        total=total,
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """What moves a bar, given how many are done and how many there are."""
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    off = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=off) as bar:
        task = bar.add_task(label)

        def move(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield move

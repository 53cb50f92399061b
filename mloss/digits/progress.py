"""A progress bar on a terminal, and silence in a pipe."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")


def tracked(items: Sequence[Item], description: str) -> Iterator[Item]:
    """The items in turn, counted on standard error where that is a terminal."""
    console = Console(stderr=True)
    yield from track(
        items, description, console=console, disable=not console.is_terminal
    )

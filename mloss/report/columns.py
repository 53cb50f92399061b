"""Plain columns on a page that fits a terminal and a pipe."""

from collections.abc import Sequence

from rich.box import Box
from rich.console import Console
from rich.table import Table

WIDTH = 100
# A narrower terminal wraps lines rather than lose columns.
NARROWEST = 80
# Columns of names are folded no narrower than this.
LEAST = 10
# A rule under the header and nothing else.
_HEADED = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


def page() -> Console:
    """Standard output; wide enough for every table, most of them on a terminal."""
    console = Console(highlight=False)
    least = NARROWEST if console.is_terminal else WIDTH
    console.width = max(console.width, least)
    return console


def columns(
    texts: Sequence[str], numbers: Sequence[str], *, fold: bool = False
) -> Table:
    """A table without rows; texts fold for want of room, numbers only with `fold`."""
    table = Table(box=_HEADED, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in texts:
        table.add_column(name, overflow="fold", min_width=LEAST)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=not fold)
    return table

"""`mloss methods`: how models can be merged, and by whose method."""

import argparse
import json
from typing import Any

from rich.table import Table
from rich.text import Text

from mloss.commands.method_options import options_in_text
from mloss.commands.options import PROGRAM
from mloss.merging import METHODS, Method
from mloss.report.columns import columns, page


def add_to(commands: Any) -> None:
    """Add the command to the program."""
    parser = commands.add_parser(
        "methods",
        help="list the merging methods and their options",
        description="List the merging methods, what each needs beside the models, its "
        "options with their defaults, and where it comes from.",
        epilog=f"example: {PROGRAM} methods --json",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the list."""
    methods = [METHODS[name] for name in sorted(METHODS)]
    if options.json:
        print(json.dumps({m.name: _record(m) for m in methods}, indent=2, default=str))
    else:
        page().print(_table(methods))


def needs_in_words(method: Method) -> str:
    """What a method needs beside the models, for a person who has files."""
    if "task_data" in method.needs:
        return "samples of each source's task"
    return "samples" if "data" in method.needs else "nothing"


def _record(method: Method) -> dict[str, object]:
    return {
        "source": method.source,
        "needs": sorted(method.needs),
        "options": options_in_text(method.name),
        "draws": method.draws,
    }


def _table(methods: list[Method]) -> Table:
    table = columns(("method", "needs", "options", "from"), ())
    for method in methods:
        known = options_in_text(method.name)
        options = (f"{name}={value}" for name, value in known.items())
        table.add_row(
            *map(
                Text,
                (
                    method.name,
                    needs_in_words(method),
                    ", ".join(options),
                    method.source,
                ),
            )
        )
    return table

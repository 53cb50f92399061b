"""Simulations on the command line: `python -m simulate sweep` and its siblings."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from simulate.network_command import add_network_command
from simulate.sweep_command import add_sweep_command


class _Parser(argparse.ArgumentParser):
    """A parser whose refusal is one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and say what is wrong."""
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sub-command; return its exit status: 0, 2 for bad input, 130 interrupted.

    Each sub-command is a module with a function that adds it to the parser and sets
    `run`, which takes the parsed options and returns the status.
    """
    options = _parser().parse_args(arguments)
    status: int = options.run(options)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m simulate",
        description="Monte Carlo of M-Loss from its definition.",
        epilog="example: python -m simulate sweep --activations relu --ratios 1,10",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    add_sweep_command(commands)
    add_network_command(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())

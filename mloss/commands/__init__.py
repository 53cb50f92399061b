"""The command `mloss`: score, merge and compare models on disk."""

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return the exit status.

    An interrupt while the libraries are read ends it as quietly as one later.
    """
    try:
        from mloss.commands.program import main as run

        return run(arguments)
    except KeyboardInterrupt:
        print("mloss: interrupted", file=sys.stderr)
        return 130

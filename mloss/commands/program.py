"""The program: which command is meant, and what its exit status is."""

import sys
from collections.abc import Sequence

from figures.command_line import CommandParser
from mloss.commands import (
    compare_command,
    merge_command,
    methods_command,
    rank_command,
    score_command,
)
from mloss.commands.options import PROGRAM

_COMMANDS = (
    score_command,
    merge_command,
    methods_command,
    compare_command,
    rank_command,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return the exit status.

    0 when it is done, 2 with one line on standard error for bad input, 130 when
    interrupted. What goes wrong in the code itself is raised.
    """
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        return _refused(options.command, f"{named}{error.strerror or error}")
    except ImportError as error:
        needed = f"{error}: pip install 'mloss[hub]'"
        return _refused(options.command, needed)
    except ValueError as error:
        return _refused(options.command, str(error))
    except KeyboardInterrupt:
        print(f"{PROGRAM} {options.command}: interrupted", file=sys.stderr)
        return 130
    return 0


def _refused(command: str, reason: str) -> int:
    line = " ".join(reason.split())
    print(f"{PROGRAM} {command}: {line}", file=sys.stderr)
    return 2


def _parser() -> CommandParser:
    parser = CommandParser(
        prog=PROGRAM,
        description="How far the average of fine-tuned models is from their ensemble, "
        "where in the network that arises, and merging with it.",
        epilog=f"example: {PROGRAM} score base tuned-1 tuned-2 --data texts.jsonl",
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=CommandParser
    )
    for command in _COMMANDS:
        command.add_to(commands)
    return parser

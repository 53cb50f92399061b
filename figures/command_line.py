"""What the commands that compute with the embedded models share."""

import argparse
from collections.abc import Callable
from typing import NoReturn


class CommandParser(argparse.ArgumentParser):
    """Refuses bad arguments with status 2 and one line, which --help would explain."""

    def error(self, message: str) -> NoReturn:
        """Leave with the one line."""
        self.exit(2, f"{self.prog}: {message}; see --help\n")


def add_computing_options(parser: argparse.ArgumentParser) -> None:
    """Add --seed, --device and --dtype; a value that cannot be met is refused."""
    parser.add_argument(
        "--seed",
        type=_seed,
        default=0,
        metavar="N",
        help="of simulations and embedded models (default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        type=_only("cpu", "another device would gain nothing for so small a network"),
        default="cpu",
        help="where the embedded network runs: %(default)s, for it is small",
    )
    parser.add_argument(
        "--dtype",
        type=_only("float64", "the gaps that are measured would drown in rounding"),
        default="float64",
        help="what it computes in: %(default)s, for its gaps are small",
    )


def _seed(text: str) -> int:
    # The embedded models share out 2**20 streams to each seed.
    if not (text.isdecimal() and int(text) < 2**31):
        raise argparse.ArgumentTypeError(f"must be from 0 to {2**31 - 1}, got {text!r}")
    return int(text)


def _only(value: str, reason: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text != value:
            raise argparse.ArgumentTypeError(
                f"must be {value}, as {reason}; got {text!r}"
            )
        return text

    return parse

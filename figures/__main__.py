"""The command `python -m figures [--out DIR] [NAME ...]`."""

import argparse
import errno
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from figures.command_line import CommandParser, add_computing_options
from figures.gallery import GALLERY
from figures.rendering import KINDS, save


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw and save what the command line asks for; return the exit status.

    0 when all is saved, 2 for bad arguments and for files that cannot be read or
    written.
    """
    asked = _parser().parse_args(arguments)
    if unknown := [name for name in asked.names if name not in GALLERY]:
        return _refused(f"no figure {', '.join(unknown)}; known: {', '.join(GALLERY)}")
    try:
        _draw(asked, asked.names or list(GALLERY))
    except OSError as error:
        return _refused(f"{error.filename or 'output'}: {error.strerror or error}")
    return 0


def _draw(asked: argparse.Namespace, names: list[str]) -> None:
    _prepare(asked.out, names)
    console = Console(stderr=True)
    written = {}
    for name in names:
        with console.status(f"drawing {name}"):
            paths = save(GALLERY[name].draw(asked.seed), name, out=asked.out)
        written[name] = [str(path) for path in paths]
        if not asked.json:
            print(*written[name], sep="\n", flush=True)
    if asked.json:
        print(json.dumps(written, indent=2))


def _prepare(out: Path, names: list[str]) -> None:
    """Make the folder; raise OSError where it or a file's place is taken."""
    out.mkdir(parents=True, exist_ok=True)
    for path in (out / f"{name}.{kind}" for name in names for kind in KINDS):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))


def _refused(reason: str) -> int:
    print(f"python -m figures: {reason}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="python -m figures",
        description="Draw the figures as PNG and SVG and print the files' paths.",
        epilog="example: python -m figures --out out/figures expectation",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"what to draw, everything by default: {', '.join(GALLERY)}",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/figures"),
        metavar="DIR",
        help="where to write (default: %(default)s)",
    )
    add_computing_options(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one object: name to its files"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

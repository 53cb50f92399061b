"""The command `python -m figures [--out DIR] [NAME ...]`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from figures.gallery import GALLERY
from figures.rendering import save


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw and save what the command line asks for; return the exit status."""
    asked = _parser().parse_args(arguments)
    if unknown := [name for name in asked.names if name not in GALLERY]:
        return _refused(f"no figure {', '.join(unknown)}; known: {', '.join(GALLERY)}")
    if asked.seed < 0:
        return _refused(f"--seed must be at least 0, got {asked.seed}")
    try:
        asked.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return _refused(f"--out {asked.out} cannot be made: {error.strerror}")
    console = Console(stderr=True)
    written = {}
    for name in asked.names or GALLERY:
        with console.status(f"drawing {name}"):
            paths = save(GALLERY[name].draw(asked.seed), name, out=asked.out)
        written[name] = [str(path) for path in paths]
        if not asked.json:
            print(*written[name], sep="\n", flush=True)
    if asked.json:
        print(json.dumps(written, indent=2))
    return 0


def _refused(reason: str) -> int:
    print(f"python -m figures: {reason}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
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
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of simulations and embedded models (default: %(default)s)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one object: name to its files"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

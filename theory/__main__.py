"""Derivations on the command line: `python -m theory derive [NAME] [--latex]`."""

import argparse
import sys
from collections.abc import Sequence

from theory.derivations import DERIVATIONS, DerivationError

_EXAMPLE = "example: python -m theory derive relu"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 1 (not verified) or 2 (usage)."""
    options = _parser().parse_args(argv)
    if options.name is None:
        print(_listing())
        return 0
    if options.name not in DERIVATIONS:
        known = ", ".join(DERIVATIONS)
        print(f"no derivation {options.name!r}; known: {known}", file=sys.stderr)
        return 2
    return _print_verified(options.name, as_latex=options.latex)


def _print_verified(name: str, *, as_latex: bool) -> int:
    derivation = DERIVATIONS[name]()
    try:
        derivation.verify()
    except DerivationError as error:
        print(error, file=sys.stderr)
        return 1
    print(derivation.latex() if as_latex else derivation.text())
    return 0


def _listing() -> str:
    width = max(map(len, DERIVATIONS))
    return "\n".join(
        f"{name:{width}}  {DERIVATIONS[name]().title}" for name in DERIVATIONS
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m theory",
        description="The theory of expected M-Loss, derived step by step.",
        epilog=_EXAMPLE,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    derive = commands.add_parser(
        "derive",
        help="print a derivation, each step verified by sympy first",
        description="Print a derivation, each step verified by sympy first. Without a "
        "name, list the derivations.",
        epilog=_EXAMPLE,
    )
    derive.add_argument("name", nargs="?", metavar="NAME", help="which derivation")
    derive.add_argument(
        "--latex", action="store_true", help="LaTeX instead of Unicode text"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""Check every claim of the paper: `python -m paper_checks [--out DIR] [--json]`."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from figures.command_line import CommandParser, add_computing_options
from figures.gallery import GALLERY
from figures.rendering import KINDS
from mloss.digits.cache import cache_directory
from paper_checks.claims import CLAIMS
from paper_checks.console import page, progress, show, summary
from paper_checks.gallery import drawn
from paper_checks.outputs import (
    claims_json,
    prepare_outputs,
    require_folder,
    write_outputs,
)
from paper_checks.provenance import Provenance
from paper_checks.record import Checked
from paper_checks.registry import UnknownClaimError
from paper_checks.report import report_html

PROGRAM = "python -m paper_checks"


def main(arguments: Sequence[str] | None = None) -> int:
    """Check what the command line asks for; return the exit status.

    0 when every verdict is the recorded one, 1 when one is not, 2 for bad arguments
    and for files that cannot be read or written, 130 when interrupted.
    """
    started = monotonic()
    given = sys.argv[1:] if arguments is None else arguments
    asked = _parser().parse_args(given)
    try:
        return _run(asked, command=shlex.join([*PROGRAM.split(), *given]), at=started)
    except UnknownClaimError as error:
        return _refused(f"--only: {error}")
    except OSError as error:
        return _refused(f"{error.filename or 'output'}: {error.strerror or error}")
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted, no report was written", file=sys.stderr)
        return 130


def _run(asked: argparse.Namespace, *, command: str, at: float) -> int:
    chosen = CLAIMS.select(asked.only)
    require_folder(cache_directory())
    if asked.out:
        prepare_outputs(asked.out, ["report.html", "claims.json", *_images()])
    checked = [
        one.examine(seed=asked.seed) for one in progress(chosen, lambda one: one.id)
    ]
    if asked.json:
        print(claims_json(checked), end="", flush=True)
    else:
        show(page(), checked)
    if asked.out:
        _write(asked.out, checked, seed=asked.seed, command=command, at=at)
    if all(one.as_recorded for one in checked):
        return 0
    print(summary(checked), file=sys.stderr)
    return 1


def _write(
    out: Path, checked: list[Checked], *, seed: int, command: str, at: float
) -> None:
    """Draw the figures and write them, the report and the records, all or none."""
    figures = [drawn(name, seed=seed) for name in progress(list(GALLERY), str)]
    provenance = Provenance(command, seed=seed, seconds=monotonic() - at)
    report = report_html(checked, figures=figures, provenance=provenance)
    images = {
        f"figures/{figure.name}.{kind}": image
        for figure in figures
        for kind, image in figure.images.items()
    }
    written = write_outputs(
        out,
        {
            **images,
            "report.html": report.encode(),
            "claims.json": claims_json(checked).encode(),
        },
    )
    print(f"wrote {len(written)} files under {out}", file=sys.stderr)


def _images() -> list[str]:
    return [f"figures/{name}.{kind}" for name in GALLERY for kind in KINDS]


def _refused(reason: str) -> int:
    print(f"{PROGRAM}: {reason}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog=PROGRAM,
        description="Check every claim of the M-Loss paper and print what was found. "
        "Exit status: 0 when every verdict is the recorded one, 1 when one is not, "
        "2 for bad arguments and for files that cannot be read or written.",
        epilog=f"example: {PROGRAM} --only expected-relu expected-gelu",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="also write claims.json, report.html and figures/ there",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="ID",
        help="check these claims only",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the records as JSON, as in claims.json",
    )
    add_computing_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""The command `python -m simulate sweep`: expected M-Loss over a grid, into a file."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from simulate.activations import KNOWN
from simulate.progress_bar import progress_bar
from simulate.results_file import journal_path
from simulate.sweep import sweep

PROGRAM = "python -m simulate sweep"
Item = TypeVar("Item")


def add_sweep_command(commands: Any) -> None:
    """Add the sub-command `sweep`, whose `run` takes the parsed options."""
    parser = commands.add_parser(
        "sweep",
        help="estimate expected M-Loss in every cell of a grid",
        description="Estimate expected node M-Loss from its definition in every cell "
        "of activations x k x sigma x q, on all cores or on a Dask cluster. The same "
        "seed gives the same numbers on any number of workers. A run that was stopped "
        "goes on from its last finished cell when it is started again.",
        epilog=f"example: {PROGRAM} --activations relu,gelu --ratios 0.5,10,1e6 "
        "--qs 2,3 --rtol 1e-3 --out sweep.parquet",
    )
    _add_grid(parser)
    parser.add_argument(
        "--rtol",
        type=float,
        metavar="R",
        help="a cell stops at this standard error relative to its value",
    )
    parser.add_argument(
        "--n",
        type=int,
        default=2**22,
        metavar="N",
        help="samples of an estimate, at most with --rtol (default: %(default)s)",
    )
    parser.add_argument(
        "--method", default="qmc", help="of drawing samples (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=-1,
        metavar="N",
        help="processes; -1, the default, for one on every core",
    )
    parser.add_argument(
        "--cluster", metavar="ADDRESS", help="a Dask scheduler, tcp://HOST:PORT"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the Parquet table to write or extend"
    )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.set_defaults(run=run_sweep)


def run_sweep(options: argparse.Namespace) -> int:
    """Sweep and print; return 0, 2 for bad input and 130 when interrupted."""
    try:
        ks, sigmas = _scales(options)
        with progress_bar("cells") as progress:
            table = sweep(
                options.activations,
                ks,
                sigmas,
                qs=options.qs,
                n=options.n,
                rng=np.random.default_rng(options.seed),
                rtol=options.rtol,
                method=options.method,
                out=options.out,
                workers=options.workers,
                cluster=options.cluster,
                progress=progress,
            )
    except (ValueError, ImportError) as error:
        return _refused(str(error))
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        return _refused(f"{named}{error.strerror or error}")
    except KeyboardInterrupt:
        return _interrupted(options.out)
    print(_json(table) if options.json else _text(table))
    return 0


def _scales(options: argparse.Namespace) -> tuple[list[float], list[float]]:
    if options.ratios is None:
        return options.ks, options.sigmas
    if len(options.sigmas) > 1:
        raise ValueError("--ratios are of k to one sigma; --ks go with several")
    return [ratio * options.sigmas[0] for ratio in options.ratios], options.sigmas


def _refused(reason: str) -> int:
    print(f"{PROGRAM}: {reason}", file=sys.stderr)
    return 2


def _interrupted(out: Path | None) -> int:
    left = (
        "nothing is kept without --out"
        if out is None
        else f"finished cells are in {journal_path(out)}; the same command goes on"
    )
    print(f"{PROGRAM}: interrupted; {left}", file=sys.stderr)
    return 130


def _json(table: pa.Table) -> str:
    rows = [
        row | {"finished": row["finished"].isoformat()} for row in table.to_pylist()
    ]
    return json.dumps(rows, indent=2, allow_nan=False)


def _text(table: pa.Table) -> str:
    rows = table.to_pylist()
    width = max(len("activation"), *(len(row["activation"]) for row in rows))
    heads = ("k", "sigma", "q", "value", "stderr", "samples")
    head = "".join(map("{:>{}}".format, heads, (10, 10, 4, 14, 10, 10)))
    lines = [f"{'activation':{width}}{head}"]
    for row in rows:
        short = "  short of --rtol" if row["reached"] is False else ""
        lines.append(
            f"{row['activation']:{width}}{row['k']:>10g}{row['sigma']:>10g}"
            f"{row['q']:>4}{row['value']:>14.6g}{row['stderr']:>10.1e}"
            f"{row['n']:>10}{short}"
        )
    return "\n".join(lines)


def _add_grid(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--activations",
        type=_listed(str),
        required=True,
        metavar="A,B",
        help=", ".join(KNOWN),
    )
    scales = parser.add_mutually_exclusive_group(required=True)
    scales.add_argument(
        "--ks", type=_listed(float), metavar="K,...", help="half-widths"
    )
    scales.add_argument(
        "--ratios", type=_listed(float), metavar="R,...", help="k in units of sigma"
    )
    parser.add_argument(
        "--sigmas",
        type=_listed(float),
        default=[1.0],
        metavar="S,...",
        help="default: 1",
    )
    parser.add_argument(
        "--qs", type=_listed(int), default=[2], metavar="Q,...", help="default: 2"
    )


def _listed(kind: Callable[[str], Item]) -> Callable[[str], list[Item]]:
    """A parser of values with commas between them."""

    def parse(text: str) -> list[Item]:
        try:
            return [kind(part.strip()) for part in text.split(",")]
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"must be {kind.__name__} values with commas between, got {text!r}"
            ) from None

    return parse


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number >= 0, got {text!r}")
    return int(text)

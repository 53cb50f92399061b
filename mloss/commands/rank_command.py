"""`mloss rank`: which models of a pool merge best, and with which weights."""

import argparse
import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.table import Table
from rich.text import Text

from mloss.commands.family import Family
from mloss.commands.options import (
    PROGRAM,
    add_computing,
    add_data,
    add_models,
    check_folder,
    count,
)
from mloss.commands.provenance import provenance
from mloss.curvature import Confirmed, Found, gap_pool, search
from mloss.progress import progress_bar
from mloss.report.columns import columns, page
from mloss.report.numbers import short, with_error
from mloss.report.record import without_infinities
from mloss.report.short_names import short_names
from mloss.whole_file import write_whole


def add_to(commands: Any) -> None:
    """Add the command to the program."""
    parser = commands.add_parser(
        "rank",
        help="find the subsets of a pool that merge best",
        description="Run every model and the average of every pair once, foretell from "
        "those how far the average of any subset is from its ensemble, and measure the "
        "best ones.",
        epilog=f"example: {PROGRAM} rank base tuned-* --data texts.jsonl --size 3 "
        "--out pool",
    )
    add_models(parser, weighted=False)
    add_data(parser, required=True)
    parser.add_argument(
        "--size",
        type=count,
        action="append",
        metavar="K",
        help="how many models a subset has; again for several (default: 2 to all)",
    )
    parser.add_argument(
        "--top",
        type=count,
        default=5,
        metavar="N",
        help="subsets of each size that are measured (default: %(default)s)",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="processes, each with its own copies of the models; -1 for one on every "
        "core (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write ranking.json there, and keep what is finished: a stopped run goes "
        "on, and models can be added",
    )
    add_computing(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Measure the pool, search it, confirm the best, print and write them."""
    check_folder(options.out)
    if options.size and max(options.size) > len(options.sources):
        raise ValueError(f"--size must be at most the {len(options.sources)} sources")
    family = Family.of(options)
    given = family.runnable(options)
    samples = family.samples(options)
    data = list(samples.batches("reading samples"))
    with ExitStack() as stack:
        kept = options.out or Path(stack.enter_context(TemporaryDirectory()))
        move = stack.enter_context(progress_bar("pairs"))
        pool = gap_pool(
            given.model,
            given.sources,
            data=data,
            directory=kept / "pool",
            jobs=options.jobs,
            progress=move,
        )
        found = search(
            pool,
            given.model,
            given.sources,
            data=data,
            sizes=sorted(set(options.size or range(2, pool.models + 1))),
            top=options.top,
        )
    record = {
        "sizes": [_record(one, options.sources) for one in found],
        "samples": pool.samples,
        "made_from": provenance(options, family),
    }
    text = json.dumps(without_infinities(record), indent=2, allow_nan=False)
    if options.out:
        write_whole(options.out / "ranking.json", f"{text}\n".encode())
    if options.json:
        print(text)
    else:
        _show(found, options.sources, samples=pool.samples)
    samples.report_skipped("rank")


def _record(found: Found, names: Sequence[str]) -> dict[str, Any]:
    return {
        "size": found.size,
        "subsets_tried": found.ranking.tried,
        "exhaustive": found.ranking.exhaustive,
        "best": [_row(one, names) for one in found.equal],
        "weighted": _row(found.weighted, names),
    }


def _row(one: Confirmed, names: Sequence[str]) -> dict[str, Any]:
    candidate = one.candidate
    return {
        "models": [names[i] for i in candidate.members],
        "weights": list(candidate.weights),
        "predicted_gap": candidate.predicted_gap,
        "gap": one.gap,
        "stderr": one.stderr,
    }


def _show(found: Sequence[Found], names: Sequence[str], *, samples: int) -> None:
    console = page()
    console.print(
        f"Gap: mean distance of a merge's output from its ensemble's over {samples} "
        "samples. A small gap says that averaging loses little, not that the models "
        "are good."
    )
    shown = short_names(names)
    for one in found:
        looked = "all tried" if one.ranking.exhaustive else "not all tried"
        title = f"Best of {one.ranking.tried} subsets of {one.size} ({looked})"
        console.print(Text(f"\n{title}", style="bold"), _table(one, shown))


def _table(found: Found, names: Sequence[str]) -> Table:
    table = columns(("models", "weights"), ("gap", "predicted"))
    for one in (*found.equal, found.weighted):
        candidate = one.candidate
        table.add_row(
            Text(", ".join(names[i] for i in candidate.members)),
            "equal" if one is not found.weighted else _weights(candidate.weights),
            with_error(one.gap, one.stderr),
            short(candidate.predicted_gap),
        )
    return table


def _weights(weights: Sequence[float]) -> str:
    return ", ".join(f"{weight:.3f}" for weight in weights)

"""`mloss compare`: which merge answers as the experts do, without labels."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mloss.batches import Batch
from mloss.checkpoints import (
    as_source,
    open_checkpoint,
    save_checkpoint,
)
from mloss.checkpoints.saving import check_free
from mloss.checkpoints.unfinished import check_left_over, unfinished_place
from mloss.commands.family import Family, Samples
from mloss.commands.model_files import file_states, model_files
from mloss.commands.options import (
    DTYPES,
    PROGRAM,
    add_computing,
    add_data,
    add_models,
    check_folder,
    check_no_input,
)
from mloss.commands.provenance import provenance
from mloss.commands.selection_notes import MERGED, selection_notes
from mloss.commands.spelt_candidates import spelt
from mloss.compare import (
    Candidate,
    Comparison,
    compare,
    default_candidates,
    read_head,
)
from mloss.compare.kept import fingerprint_of_batches
from mloss.report.columns import page
from mloss.report.comparison import as_json, show
from mloss.report.record import without_infinities
from mloss.report.short_names import short_names
from mloss.whole_file import write_whole

RECORD = "comparison.json"


def add_to(commands: Any) -> None:
    """Add the command to the program."""
    parser = commands.add_parser(
        "compare",
        help="merge in several ways and rank the merges without labels",
        description="Merge by several methods and rank the merges by how often each "
        "answers as the task's own expert does, on unlabelled samples of every task. "
        "Give --data once for each SOURCE in their order, or once for all; "
        "--samples counts those of each task.",
        epilog=f"example: {PROGRAM} compare base tuned-1 tuned-2 --data texts-1.jsonl "
        "--data texts-2.jsonl --methods average,ties:density=0.1/0.2:scale=1 --select "
        "--out merged",
    )
    add_models(parser)
    add_data(parser, required=True)
    parser.add_argument(
        "--methods",
        metavar="A,B",
        help="what to compare: METHOD for its usual grid, METHOD:OPTION=VALUE for one "
        "merge, VALUE/VALUE for a grid, all for every method; a VALUE with a comma, "
        'colon or slash goes in double quotes, as in m_ties:layers="0,1" (default: the '
        f"grids of {', '.join(dict.fromkeys(c.method for c in default_candidates()))})",
    )
    parser.add_argument(
        "--merged",
        action="append",
        default=[],
        metavar="PATH",
        help="a merge that is there already, to be compared too, as it would be "
        "written in the dtypes of BASE; again for several",
    )
    parser.add_argument(
        "--head",
        type=Path,
        action="append",
        metavar="PATH",
        help="the classifier of each SOURCE in their order: a safetensors file with "
        "weight [class, feature], and bias and scale where it has them; without, "
        "logits are compared where the models give them, and nearest neighbours else",
    )
    parser.add_argument(
        "--pooling",
        choices=("mean", "first"),
        default="mean",
        help="which one row of a sample's tokens is looked at, where the models give "
        "one each (default: %(default)s)",
    )
    parser.add_argument(
        "--select", action="store_true", help="write the best merge to --out"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"write {RECORD} there and, with --select, the best merge",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="with --select, replace DIR where it holds another checkpoint, or what "
        "an interrupted run left of it",
    )
    parser.add_argument(
        "--no-cache",
        action="store_true",
        help="measure again what was measured before",
    )
    add_computing(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Compare, print, and write what is asked for."""
    given = options.methods
    candidates = default_candidates() if given is None else spelt(given)
    _check_out(options)
    family = Family.of(options)
    samples = _each_once(family.task_samples(options))
    everything = family.samples(options)
    found = _compared(options, family, candidates, samples, everything)
    tasks = short_names(options.sources)
    record = as_json(found, tasks=tasks) | {"made_from": provenance(options, family)}
    text = json.dumps(without_infinities(record), indent=2, allow_nan=False)
    # Before anything is written, since that may fail after all the work.
    if options.json:
        print(text, flush=True)
    else:
        show(page(), found, tasks=tasks)
    _write(options, family, found, f"{text}\n")
    if options.select and not options.json:
        print(f"{options.out}: {found.best.name}")
    for one in (*samples, everything):
        one.report_skipped("compare")


def _compared(
    options: argparse.Namespace,
    family: Family,
    candidates: Sequence[Candidate],
    samples: Sequence[Samples],
    everything: Samples,
) -> Comparison:
    heads = [read_head(path) for path in options.head or ()]
    by_task, together = [_read(one) for one in samples], _read(everything)
    origin = None
    if not options.no_cache:
        origin = _origin(options, family, [*by_task, together])
    return compare(
        family.base,
        family.sources,
        task_data=by_task,
        methods=candidates,
        merged={
            f"{MERGED}{path}": as_source(family.base, open_checkpoint(path))
            for path in options.merged
        },
        heads=heads or None,
        data=together,
        weights=family.weights,
        pooling=options.pooling,
        seed=options.seed,
        device=options.device,
        dtype=DTYPES.get(options.dtype),
        origin=origin,
    )


def _check_out(options: argparse.Namespace) -> None:
    check_folder(options.out)
    if options.select and options.out is None:
        raise ValueError("--out must say where the selected merge goes")
    if options.force and not options.select:
        raise ValueError("--force is for the merge that --select writes")
    if options.select:
        check_free(options.out, overwrite=options.force)
        models = (options.base, *options.sources, *options.merged)
        files = (*options.data, *(options.head or ()))
        check_no_input(options.out, (*models, *map(str, files)))
        _check_unfinished(options.out, discard=options.force)


def _check_unfinished(out: Path, *, discard: bool) -> None:
    """Raise ValueError where a run that was killed left something, or one goes on."""
    check_left_over(out, {}, discard=True)
    if (place := unfinished_place(out)).exists() and not discard:
        raise ValueError(
            f"{out} was begun and not finished (it is in {place}): replace it with "
            "--force"
        )


def _each_once(samples: Sequence[Samples]) -> list[Samples]:
    """Those of each task, or one where all tasks have the same.

    Raises ValueError where some have the same: they are not independent.
    """
    different = list({id(one): one for one in samples}.values())
    if len(different) not in (1, len(samples)):
        raise ValueError(
            "--data has one file for some of the sources and others for the rest: give "
            "each a file of its own, or one for all"
        )
    return different


def _read(samples: Samples) -> list[Batch]:
    """Samples as the merging methods get them, in the precision they come in."""
    return list(replace(samples, dtype=None).batches("reading samples"))


def _write(
    options: argparse.Namespace, family: Family, found: Comparison, text: str
) -> None:
    if not options.select:
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            write_whole(options.out / RECORD, text.encode())
        return
    save_checkpoint(
        found.best.merged(),
        family.configured_base(),
        options.out,
        overwrite=options.force,
        notes=lambda written: {
            RECORD: text,
            **selection_notes(options, family, found.best, written),
        },
    )


def _origin(
    options: argparse.Namespace, family: Family, batches: list[list[Batch]]
) -> dict[str, object]:
    """What models, heads and samples are: files by their times, samples by content."""
    models = zip(
        (options.base, *options.sources), (family.base, *family.sources), strict=True
    )
    return {
        "models": [file_states(model_files(name, model)) for name, model in models],
        "heads": [file_states([path]) for path in options.head or ()],
        "samples": [fingerprint_of_batches(each) for each in batches],
        "quick_gelu": options.quick_gelu,
    }

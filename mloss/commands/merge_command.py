"""`mloss merge`: one checkpoint from many, in the layout that transformers loads."""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from mloss.checkpoints import Checkpoint, save_checkpoint
from mloss.checkpoints.saving import check_free
from mloss.commands.family import Family, Samples
from mloss.commands.options import (
    PROGRAM,
    add_computing,
    add_data,
    add_models,
    check_folder,
)
from mloss.commands.provenance import provenance
from mloss.gap import Gap, gap
from mloss.merging import METHODS, Merged, merge
from mloss.report.numbers import percent, with_error
from mloss.report.record import without_infinities

# The options of methods that a command line can give, by their names there.
_OPTIONS = ("density", "spread", "scale", "combine")
RECORD = "mloss.json"


def add_to(commands: Any) -> None:
    """Add the command to the program."""
    parser = commands.add_parser(
        "merge",
        help="merge the models and write a checkpoint",
        description="Merge fine-tuned models and write a directory that transformers "
        "loads. With --data the distance of the merge from the sources' ensemble is "
        "measured too; some methods cannot do without it.",
        epilog=f"example: {PROGRAM} merge base tuned-1 tuned-2 --method m_ties "
        "--data texts.jsonl --out merged",
    )
    add_models(parser)
    parser.add_argument(
        "--method", required=True, choices=list(METHODS), help="how to merge"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="what to write"
    )
    add_data(parser, required=False)
    _add_method_options(parser)
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace DIR where it holds another checkpoint",
    )
    add_computing(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Merge, measure, write and say where."""
    chosen = _chosen(options)
    check_folder(options.out)
    check_free(options.out, overwrite=options.force)
    _check_no_input(options)
    if METHODS[options.method].needs and not options.data:
        raise ValueError(f"--data must be given: {options.method} looks at samples")
    family = Family.of(options)
    samples = family.samples(options) if options.data else None
    merged = _as_stored(_merged(family, samples, options.method, chosen), family.base)
    distance = _distance(family, samples, merged, options)
    record = without_infinities(_record(options, family, merged, distance))
    text = json.dumps(record, indent=2, allow_nan=False)
    save_checkpoint(
        merged.state,
        family.configured_base(),
        options.out,
        overwrite=options.force,
        notes={RECORD: f"{text}\n"},
    )
    print(text if options.json else _summary(options, distance))
    if samples is not None:
        samples.report_skipped("merge")


def _check_no_input(options: argparse.Namespace) -> None:
    """Raise ValueError where a model lies in the directory that is to be replaced."""
    out = options.out.resolve()
    for name in (options.base, *options.sources):
        path = Path(name).expanduser().resolve()
        if path.exists() and out in (path, *path.parents):
            raise ValueError(
                f"--out {options.out} holds {name}: give another directory"
            )


def _as_stored(merged: Merged, base: Checkpoint) -> Merged:
    """The merge in the base's dtypes, as it is written: that is what is measured."""
    dtypes = {name: entry.dtype for name, entry in base.entries.items()}
    rounded = {name: value.to(dtypes[name]) for name, value in merged.state.items()}
    return replace(merged, state=rounded)


def _merged(
    family: Family, samples: Samples | None, method: str, chosen: dict[str, Any]
) -> Merged:
    data = None
    if samples is not None and METHODS[method].needs:
        # Merging is exact in the stored precision, whatever the gap is measured in.
        data = replace(samples, dtype=None).batches("merging")
    return merge(family.base, family.sources, method=method, data=data, **chosen)


def _distance(
    family: Family,
    samples: Samples | None,
    merged: Merged,
    options: argparse.Namespace,
) -> Gap | None:
    if samples is None:
        return None
    given = family.runnable_with(merged.state, options)
    return gap(
        given.base,
        given.sources,
        samples.batches("measuring the gap"),
        model=given.model,
        weights=family.weights,
    )


def _add_method_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--density",
        type=float,
        metavar="K",
        help="fraction of a task vector that is kept (the paper's k)",
    )
    parser.add_argument(
        "--spread",
        type=float,
        metavar="E",
        help="by how much the keep rates of nodes differ (the paper's e)",
    )
    parser.add_argument(
        "--scale", type=float, metavar="S", help="what the merged step is multiplied by"
    )
    parser.add_argument(
        "--combine",
        choices=("disjoint_mean", "weighted_sum"),
        help="how entries that agree in sign are combined",
    )


def _chosen(options: argparse.Namespace) -> dict[str, Any]:
    """The method's options that were given. Raises ValueError for those it has not."""
    known = METHODS[options.method].options
    given = {name: getattr(options, name) for name in _OPTIONS}
    chosen = {name: value for name, value in given.items() if value is not None}
    if unknown := sorted(set(chosen) - set(known)):
        has = [f"--{name}" for name in _OPTIONS if name in known] or ["none"]
        raise ValueError(
            f"{options.method} has no option --{unknown[0]}; of these it has "
            f"{', '.join(has)}"
        )
    if options.weights is not None:
        chosen["weights"] = options.weights
    if METHODS[options.method].draws:
        chosen["generator"] = torch.Generator().manual_seed(options.seed)
    return chosen


def _record(
    options: argparse.Namespace,
    family: Family,
    merged: Merged,
    distance: Gap | None,
) -> dict[str, Any]:
    defaults = METHODS[merged.method].options
    named = {k: v for k, v in merged.options.items() if k in defaults}
    return {
        "out": str(options.out),
        "method": merged.method,
        "options": defaults | named,
        "gap": None if distance is None else asdict(distance),
        "made_from": provenance(options, family),
    }


def _summary(options: argparse.Namespace, distance: Gap | None) -> str:
    written = f"{options.out}: merged by {options.method}"
    if distance is None:
        return written
    return (
        f"{written}; its outputs are {percent(distance.relative)} of the ensemble's "
        f"size away from the ensemble's ({with_error(distance.mean, distance.stderr)} "
        f"over {distance.samples} samples)"
    )

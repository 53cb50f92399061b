"""`mloss merge`: one checkpoint from many, in the layout that transformers loads."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mloss.checkpoints import open_checkpoint, save_checkpoint
from mloss.checkpoints.kinship import Kinship, with_kinship
from mloss.checkpoints.saving import check_free
from mloss.checkpoints.unfinished import check_left_over, unfinished_place
from mloss.commands.family import Family, Samples
from mloss.commands.merge_plan import input_files, merge_plan
from mloss.commands.merge_record import as_text, merge_notes, merge_record
from mloss.commands.method_options import (
    add_method_options,
    parsed_options,
    texts_of_options,
)
from mloss.commands.options import (
    PROGRAM,
    add_computing,
    add_data,
    add_models,
    check_folder,
    check_no_input,
    file_size,
)
from mloss.compare.heads import read_head
from mloss.gap import Gap, gap
from mloss.merging import METHODS, mean_scores, merged_lazily
from mloss.progress import progress_bar
from mloss.report.numbers import percent, with_error
from mloss.states import State

# A source whose weights are this share of the base's size away seems to be none of it.
_STRANGE = 0.5


def add_to(commands: Any) -> None:
    """Add the command to the program."""
    parser = commands.add_parser(
        "merge",
        help="merge the models and write a checkpoint",
        description="Merge fine-tuned models and write a directory that transformers "
        "loads. With --data the distance of the merge from the sources' ensemble is "
        "measured too; some methods cannot do without it. Tensors are read, merged and "
        "written one at a time.",
        epilog=f"example: {PROGRAM} merge base tuned-1 tuned-2 --method m_ties "
        "--data texts.jsonl --out merged",
    )
    add_models(parser)
    parser.add_argument(
        "--method",
        required=True,
        choices=sorted(METHODS),
        metavar="NAME",
        help=f"how to merge: {', '.join(sorted(METHODS))} (`{PROGRAM} methods` says "
        "more)",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="what to write"
    )
    add_data(parser, required=False)
    parser.add_argument(
        "--head",
        type=Path,
        action="append",
        metavar="PATH",
        help="the classifier of each SOURCE in their order, for methods that look at "
        "classes: a safetensors file with weight [class, feature], and bias and scale "
        "where it has them",
    )
    add_method_options(parser)
    parser.add_argument(
        "--max-shard-size",
        type=file_size,
        default="5GB",
        metavar="SIZE",
        help="most bytes in one file of weights, such as 500MB (default: %(default)s)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace DIR where it holds another checkpoint, and discard what an "
        "interrupted run left",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with what an interrupted run of the same merge left beside DIR; "
        "what a method measures on samples is measured again",
    )
    add_computing(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Merge and write tensor by tensor, measure, and say where."""
    texts = texts_of_options(options)
    own = parsed_options(options.method, texts)
    _check_method_is_given_what_it_needs(options)
    check_folder(options.out)
    check_free(options.out, overwrite=options.force)
    family = Family.of(options)
    check_no_input(options.out, input_files(options, family, texts))
    plan = merge_plan(options, family, texts)
    discard = options.force and not options.resume
    check_left_over(options.out, plan, resume=options.resume, discard=discard)
    samples = _readable_samples(family, options)
    sources, kinships = with_kinship(family.base, family.sources)
    merged = _merged(replace(family, sources=sources), samples, options, own)
    record: dict[str, Any] = {}
    with _telling_how_to_resume(options.out), ExitStack() as bar:

        def notes(written: Path) -> dict[str, str]:
            bar.close()
            with _telling_that_the_weights_stay():
                distance = _distance(family, samples, written, options)
            record.update(
                merge_record(
                    options,
                    family,
                    own=own,
                    texts=texts,
                    distance=distance,
                    mloss=mean_scores(merged),
                )
            )
            return merge_notes(record, distance, written)

        save_checkpoint(
            merged,
            family.configured_base(),
            options.out,
            shard_size=options.max_shard_size,
            overwrite=options.force,
            notes=notes,
            plan=plan,
            resume=options.resume,
            moved_on=bar.enter_context(_bar(options.method)),
        )
    _say_what_is_strange(kinships)
    print(as_text(record) if options.json else _summary(options, record["gap"]), end="")
    if samples is not None:
        samples.report_skipped("merge")


def _check_method_is_given_what_it_needs(options: argparse.Namespace) -> None:
    if options.head and not METHODS[options.method].reads_heads:
        raise ValueError(f"{options.method} does not look at classes: give no --head")
    if METHODS[options.method].needs & {"data", "task_data"} and not options.data:
        raise ValueError(f"--data must be given: {options.method} looks at samples")


def _bar(method: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """Tensors counted on a terminal, where no samples are counted at the same time."""
    if METHODS[method].needs:
        return nullcontext(lambda *_: None)
    return progress_bar("merging")


def _readable_samples(family: Family, options: argparse.Namespace) -> Samples | None:
    """The samples, once a first batch of them is read and the models know its words."""
    if not options.data:
        return None
    samples = family.samples(options)
    first = min(samples.count, samples.batch)
    for _ in samples.batches("reading samples", count=first):
        pass
    return samples


def _merged(
    family: Family,
    samples: Samples | None,
    options: argparse.Namespace,
    own: Mapping[str, Any],
) -> State:
    """The merge, whose tensors are computed as they are written."""
    needs = METHODS[options.method].needs
    given: dict[str, Any] = dict(own)
    if options.weights is not None:
        given["weights"] = options.weights
    if METHODS[options.method].draws:
        given["generator"] = torch.Generator().manual_seed(options.seed)
    if options.head:
        given["heads"] = [read_head(path) for path in options.head]
    # Merging is exact in the stored precision, whatever the gap is measured in.
    if "task_data" in needs:
        given["task_data"] = [
            replace(each, dtype=None).batches("merging")
            for each in family.task_samples(options)
        ]
    elif "data" in needs and samples is not None:
        given["data"] = replace(samples, dtype=None).batches("merging")
    return merged_lazily(family.base, family.sources, method=options.method, **given)


def _distance(
    family: Family,
    samples: Samples | None,
    written: Path,
    options: argparse.Namespace,
) -> Gap | None:
    """The gap of the checkpoint as it is on disk."""
    if samples is None:
        return None
    given = family.runnable_with(open_checkpoint(written), options)
    return gap(
        given.base,
        given.sources,
        samples.batches("measuring the gap"),
        model=given.model,
        weights=family.weights,
    )


@contextmanager
def _telling_how_to_resume(out: Path) -> Iterator[None]:
    """Say, where an interruption leaves something, how to go on with it."""
    try:
        yield
    except OSError as error:
        if not unfinished_place(out).exists():
            raise
        kept = f"{error.strerror or error}; what is written so far stays: go on with "
        reason = f"{kept}--resume, or start again with --force"
        raise OSError(error.errno, reason, error.filename) from error
    except KeyboardInterrupt:
        if unfinished_place(out).exists():
            print(
                f"{PROGRAM} merge: what is written so far stays in "
                f"{unfinished_place(out)}: go on with --resume",
                file=sys.stderr,
            )
        raise


@contextmanager
def _telling_that_the_weights_stay() -> Iterator[None]:
    """Say, where the merge is whole and cannot be measured, how to go on with it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"{error}; the merged weights stay: go on with --resume, with other --data "
            "or without"
        ) from error


def _say_what_is_strange(kinships: Sequence[Kinship]) -> None:
    for kinship in kinships:
        if kinship.complete and kinship.same:
            _note(f"{kinship.source} is equal to the base; it was merged all the same")
        elif kinship.relative > _STRANGE:
            _note(
                f"{kinship.source} is {percent(kinship.relative)} of the base's size "
                "away from the base: it does not seem to be fine-tuned from it"
            )


def _note(line: str) -> None:
    print(f"{PROGRAM} merge: {line}", file=sys.stderr)


def _summary(options: argparse.Namespace, distance: Mapping[str, Any] | None) -> str:
    written = f"{options.out}: merged by {options.method}"
    if distance is None:
        return f"{written}\n"
    mean = with_error(distance["mean"], distance["stderr"])
    return (
        f"{written}; its outputs are {percent(distance['relative'])} of the ensemble's "
        f"size away from the ensemble's ({mean} over {distance['samples']} samples)\n"
    )

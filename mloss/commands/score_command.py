"""`mloss score`: where the models conflict, and whether averaging will do."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from mloss.beyond import attention_mloss, norm_mloss, stream_gap
from mloss.commands.family import Family, Samples
from mloss.commands.foretell import foretell_only
from mloss.commands.kept_rates import RATES, node_rates, write_rates
from mloss.commands.options import (
    PROGRAM,
    add_computing,
    add_data,
    add_models,
    check_folder,
    count,
    whole,
)
from mloss.commands.provenance import provenance
from mloss.curvature import explain_gap, in_words
from mloss.gap import Gap, gap
from mloss.given_models import Runnable
from mloss.merging.pruning.keep_rates import check_rates
from mloss.report import as_json, show, write_heat_map, write_nodes, write_report
from mloss.report.beyond import Beyond
from mloss.report.columns import page
from mloss.report.numbers import finite, percent
from mloss.report.record import Provenance
from mloss.report.sampling import relative_error
from mloss.score import Score, score
from mloss.states import state_of
from mloss.streaming import AveragedState
from mloss.whole_file import write_whole

Measured = TypeVar("Measured")
# Options that say nothing without samples.
_OF_SAMPLES = ("until", "explain", "beyond", "processor")


def add_to(commands: Any) -> None:
    """Add the command to the program."""
    parser = commands.add_parser(
        "score",
        help="measure M-Loss layer by layer and node by node",
        description="Measure how far the average of fine-tuned models is from their "
        "ensemble, and the M-Loss of every layer that feeds an activation, with "
        "theory's predictions beside it. Without --data it predicts from the weights "
        "alone.",
        epilog=f"example: {PROGRAM} score base tuned-1 tuned-2 --data texts.jsonl "
        "--out score",
    )
    add_models(parser)
    add_data(parser, required=False)
    parser.add_argument(
        "--until",
        type=float,
        metavar="R",
        help="take more samples than --samples, as long as there are, until the "
        "relative standard error of every layer's mean is at most R",
    )
    parser.add_argument(
        "--inputs",
        choices=("merge", "base"),
        default="merge",
        help="what reaches a layer: hidden states of the average, as Algorithm 1 has "
        "it, or of the base (default: %(default)s)",
    )
    parser.add_argument(
        "--together",
        type=count,
        default=128,
        metavar="N",
        help="samples whose hidden states are held while every parameter is read once "
        "(default: %(default)s); fewer where long texts need too much memory",
    )
    parser.add_argument(
        "--explain",
        type=count,
        nargs="?",
        const=8,
        metavar="N",
        help="also split the gap by what the parameters are and where, on N samples "
        "(default: %(const)s): some hundred forward passes",
    )
    parser.add_argument(
        "--beyond",
        action="store_true",
        help="also measure attention, normalisations and the gap behind each block",
    )
    parser.add_argument(
        "--worst",
        type=whole(0),
        default=10,
        metavar="N",
        help="how many of the worst nodes are shown (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write report.html, score.json, nodes.parquet, the heat map and the "
        f"keep rates of nodes ({RATES}) there",
    )
    parser.add_argument(
        "--density",
        type=float,
        default=0.2,
        metavar="K",
        help="keep rate of the node with the least M-Loss (default: %(default)s)",
    )
    parser.add_argument(
        "--spread",
        type=float,
        default=0.1,
        metavar="E",
        help="by how much less the one with the most keeps (default: %(default)s)",
    )
    add_computing(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Score, print and write."""
    check_folder(options.out)
    check_rates(options.density, spread=options.spread)
    _check_needs(options)
    family = Family.of(options)
    if not options.data:
        foretell_only(family, options)
        return
    samples = family.samples(options)
    given = family.runnable(options)
    scored = _scored(family, given, samples, options)
    used = replace(samples, count=scored.samples)
    found: dict[str, Any] = {
        "gap": _gap_of_average(family, given, used),
        "explanation": _if_it_can(
            "--explain", options.explain, lambda n: _explanation(family, given, used, n)
        ),
        "beyond": _if_it_can(
            "--beyond", options.beyond, lambda _: _beyond(family, given, used)
        ),
        "worst": options.worst,
    }
    origin = provenance(options, family)
    if samples.skipped:
        origin["skipped"] = list(samples.skipped)
    record = as_json(scored, provenance=origin, **found)
    text = json.dumps(record, indent=2, allow_nan=False)
    if options.out:
        _write(options.out, scored, text, provenance=origin, **found)
        rates = node_rates(
            scored, given, density=options.density, spread=options.spread
        )
        write_rates(rates, options.out)
    if options.json:
        print(text)
    else:
        show(page(), scored, **found)
    _say_what_is_missing(scored, options)
    samples.report_skipped("score")


def _check_needs(options: argparse.Namespace) -> None:
    """Raise ValueError for options that say nothing without samples."""
    given = [name for name in _OF_SAMPLES if getattr(options, name)]
    if given and not options.data:
        raise ValueError(f"--{given[0]} needs samples: give --data")


def _if_it_can(
    name: str, wanted: Any, measure: Callable[[Any], Measured]
) -> Measured | None:
    """What is measured besides; where it cannot be, one line says why."""
    if not wanted:
        return None
    try:
        return measure(wanted)
    except ValueError as error:
        print(f"{PROGRAM} score: no {name}: {error}", file=sys.stderr)
        return None


def _say_what_is_missing(scored: Score, options: argparse.Namespace) -> None:
    error = max(map(relative_error, scored.sites))
    if options.until and error > options.until:
        print(
            f"{PROGRAM} score: the data ended at {scored.samples} samples, with an "
            f"error of {percent(finite(error))} and not {percent(options.until)}",
            file=sys.stderr,
        )


def _scored(
    family: Family, given: Runnable, samples: Samples, options: argparse.Namespace
) -> Score:
    everything = len(samples.calibration.items) if options.until else None
    return score(
        given.base,
        given.sources,
        samples.batches("scoring", count=everything),
        model=given.model,
        weights=family.weights,
        inputs=options.inputs,
        until=options.until,
        at_least=options.samples,
        together=options.together,
    )


def _gap_of_average(family: Family, given: Runnable, samples: Samples) -> Gap:
    return gap(
        _average(family, given),
        given.sources,
        samples.batches("measuring the gap"),
        model=given.model,
        weights=family.weights,
    )


def _explanation(family: Family, given: Runnable, samples: Samples, wanted: int) -> str:
    parts = explain_gap(
        given.model,
        given.sources,
        data=samples.batches("explaining", count=wanted),
        weights=family.weights,
        between_blocks=True,
    )
    return in_words(parts)


def _beyond(family: Family, given: Runnable, samples: Samples) -> Beyond:
    sources = given.sources
    how: dict[str, Any] = {"model": given.model, "weights": family.weights}
    attention = samples.batches("attention")
    norms, blocks = samples.batches("normalisations"), samples.batches("blocks")
    return Beyond(
        attention_mloss(given.base, sources, attention, **how),
        norm_mloss(sources, norms, **how),
        stream_gap(_average(family, given), sources, blocks, **how),
    )


def _average(family: Family, given: Runnable) -> AveragedState:
    states = [state_of(source) for source in given.sources]
    return AveragedState(state_of(given.base), states, weights=family.weights)


def _write(
    out: Path, scored: Score, text: str, *, provenance: Provenance, **found: Any
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "score.json", f"{text}\n".encode())
    write_nodes(scored, out / "nodes.parquet", provenance=provenance)
    write_heat_map(scored, out)
    write_report(scored, out / "report.html", provenance=provenance, **found)

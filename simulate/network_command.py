"""The command `python -m simulate network`: merge random networks."""

import argparse
import json
import sys
from typing import Any

import numpy as np

from simulate.activations import KNOWN
from simulate.networks import (
    FEEDS,
    NetworkMeasurements,
    measure_networks,
    over_networks,
    ratio_over_networks,
)
from simulate.progress_bar import progress_bar

_EXAMPLE = "example: python -m simulate network --widths 64 --depth 4 --sigma 0.1"


def add_network_command(commands: Any) -> None:
    """Add the sub-command `network`, whose `run` takes the parsed options."""
    parser = commands.add_parser(
        "network",
        help="merge random networks: M-Loss of their layers, gap of their outputs",
        description="Merge fine-tunes of random networks (paper Eq. 1). Prints M-Loss "
        "by layer, with every source on its own activations, on the merge's and on "
        "the base's, and the mean square gap between merge and ensemble: means over "
        "networks and their standard errors. A wide network's pre-activations and "
        "outputs have mean square 1, and fine-tuning moves a layer's pre-activations "
        "by sigma.",
        epilog=_EXAMPLE,
    )
    parser.add_argument(
        "--widths",
        type=_widths,
        default=[64],
        metavar="M0,M1,...",
        help="inputs, hidden layers and outputs; or one width for all, with --depth "
        "(default: 64)",
    )
    parser.add_argument(
        "--depth", type=int, metavar="L", help="hidden layers of one width (default: 4)"
    )
    parser.add_argument("--sigma", type=float, default=0.1, help="default: %(default)s")
    parser.add_argument(
        "--activation",
        default="relu",
        help=f"{', '.join(KNOWN)} (default: %(default)s)",
    )
    parser.add_argument(
        "--q", type=int, default=2, help="fine-tunes of a base (default: %(default)s)"
    )
    parser.add_argument(
        "--bias-share",
        type=float,
        default=0.0,
        help="of a pre-activation's mean square (default: %(default)s)",
    )
    parser.add_argument(
        "--networks", type=int, default=200, help="default: %(default)s"
    )
    parser.add_argument(
        "--inputs", type=int, default=16, help="to each network (default: %(default)s)"
    )
    parser.add_argument("--seed", type=_seed, default=0, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run_network)


def run_network(options: argparse.Namespace) -> int:
    """Measure and print; return 0, 2 for bad options or 130 where interrupted."""
    try:
        widths = all_widths(options.widths, options.depth)
        with progress_bar("networks") as advance:
            found = measure_networks(
                widths,
                options.sigma,
                activation=options.activation,
                q=options.q,
                bias_share=options.bias_share,
                networks=options.networks,
                inputs=options.inputs,
                rng=np.random.default_rng(options.seed),
                progress=advance,
            )
    except ValueError as error:
        print(f"python -m simulate network: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    summary = {"widths": widths} | summarised(found)
    print(json.dumps(summary, indent=2) if options.json else _text(summary))
    return 0


def all_widths(widths: list[int], depth: int | None) -> list[int]:
    """Every width, where one stands for the inputs, `depth` layers and the outputs.

    Raises ValueError for a depth below 1, or one beside more than one width.
    """
    if len(widths) > 1:
        if depth is not None:
            raise ValueError("--depth goes with a single width; --widths name them all")
        return widths
    hidden = 4 if depth is None else depth
    if hidden < 1:
        raise ValueError(f"--depth must be at least 1, got {hidden}")
    return widths * (hidden + 2)


def summarised(found: NetworkMeasurements) -> dict[str, Any]:
    """Means over networks, each a pair with its standard error."""
    by_layer = {
        "node_mloss": found.node_mloss,
        "layer_mloss": found.layer_mloss,
        "jensen_variance": found.jensen_variance,
    }
    summary: dict[str, Any] = {
        name: dict(zip(FEEDS, _pairs(values), strict=True))
        for name, values in by_layer.items()
    }
    summary["gap"] = _pairs(found.gap)
    summary["output"] = _pairs(found.output)
    if found.gap.mean() > 0:
        share = ratio_over_networks(found.overlap, found.gap)
        pairs = np.stack([share.value, share.stderr], axis=-1).tolist()
        summary["mloss_share"] = dict(zip(FEEDS, pairs, strict=True))
    return summary


def _pairs(values: np.ndarray) -> Any:
    mean = over_networks(values)
    return np.stack([mean.value, mean.stderr], axis=-1).tolist()


def _text(summary: dict[str, Any]) -> str:
    lines = [f"widths {', '.join(map(str, summary['widths']))}", ""]
    for name in ("node_mloss", "layer_mloss", "jensen_variance"):
        lines.append(f"{name:16}" + "".join(f"{feed:>22}" for feed in FEEDS))
        columns = [summary[name][feed] for feed in FEEDS]
        for layer, cells in enumerate(zip(*columns, strict=True), 1):
            lines.append(f"  layer {layer:<8}" + "".join(map(_cell, cells)))
    lines += ["", "mean squares of the outputs"]
    lines += [f"  {name:14}{_cell(summary[name])}" for name in ("output", "gap")]
    if shares := summary.get("mloss_share"):
        lines.append(f"{'share of the gap':16}" + "".join(map(_cell, shares.values())))
    return "\n".join(lines)


def _cell(pair: list[float]) -> str:
    value, stderr = pair
    return f"{f'{value:.4g} ± {stderr:.1g}':>22}"


def _widths(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be whole numbers with commas between them, got {text!r}"
        ) from None


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number >= 0, got {text!r}")
    return int(text)

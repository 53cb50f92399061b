"""`mloss score` without data: what the weights alone foretell."""

import argparse
import json
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from mloss.commands.family import Family
from mloss.commands.provenance import provenance
from mloss.report.columns import columns, page
from mloss.weights_only import Foretold, foretell
from mloss.whole_file import write_whole

_BASIS = (
    "Predicted from weights and normalisation gains, with inputs taken to be "
    "standardised: good for comparing nodes and layers, not for the size of the gap. "
    "Give --data to measure."
)
# Options that make no difference where there are no samples.
_UNUSED = (
    *("samples", "batch", "together", "seed", "processor", "until", "inputs"),
    *("explain", "beyond", "density", "spread", "device", "dtype", "plain_images"),
)


def foretell_only(family: Family, options: argparse.Namespace) -> None:
    """Print and write the data-free prediction of every layer."""
    found = foretell(family.base, family.sources, weights=family.weights)
    record = {
        "basis": _BASIS,
        "layers": [_record(one, worst=options.worst) for one in found],
        "made_from": provenance(options, family, unused=_UNUSED),
    }
    text = json.dumps(record, indent=2, allow_nan=False)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        write_whole(options.out / "foretold.json", f"{text}\n".encode())
    if options.json:
        print(text)
    else:
        page().print(_BASIS, _table(found), sep="\n\n")


def _record(one: Foretold, *, worst: int) -> dict[str, object]:
    node = one.node
    return {
        "layer": one.layer_name,
        "activation": one.activation_name,
        "nodes": None if node is None else len(node),
        "mean_node_mloss": None if node is None else node.mean().item(),
        "worst_nodes": []
        if node is None
        else node.argsort(descending=True)[:worst].tolist(),
    }


def _table(found: Sequence[Foretold]) -> Table:
    numbers = ("nodes", "mean M-Loss", "worst node", "its M-Loss")
    table = columns(("layer", "activation"), numbers)
    for one in found:
        table.add_row(Text(one.layer_name), Text(one.activation_name), *_numbers(one))
    return table


def _numbers(one: Foretold) -> tuple[str, ...]:
    if one.node is None:
        return ("", "not known", "", "")
    worst = int(one.node.argmax())
    return (
        str(len(one.node)),
        f"{one.node.mean():.3g}",
        str(worst),
        f"{one.node[worst]:.3g}",
    )

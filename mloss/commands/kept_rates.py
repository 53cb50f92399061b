"""The keep rates that a score gives its nodes, for merging with other programs."""

from pathlib import Path

from mloss.checkpoints.model_names import names_in_model
from mloss.given_models import Runnable
from mloss.merging.pruning.keep_rates import keep_rates
from mloss.merging.pruning.node_rates import NodeRates
from mloss.score import Score

RATES = "keep_rates.safetensors"


def node_rates(
    scored: Score, given: Runnable, *, density: float, spread: float
) -> NodeRates:
    """Rates of Algorithm 1, line 15, under the names the base's weights have on disk.

    They rank the nodes by their M-Loss in the average of the sources or the base,
    whichever was run, and not in the running merge of M-TIES.
    """
    assert given.stored is not None
    stored = {
        name: key for key, name in names_in_model(given.stored, given.model).items()
    }
    return NodeRates(
        {
            site.layer_name: tuple(stored[name] for name in site.parameters)
            for site in scored.sites
        },
        {
            site.layer_name: keep_rates(site.node, density=density, spread=spread)
            for site in scored.sites
        },
    )


def write_rates(rates: NodeRates, folder: Path) -> None:
    """Write the rates into a folder, whole or not at all."""
    rates.save(folder / RATES)

"""Merging with keep rates of nodes that are known beforehand."""

from collections.abc import Sequence

from mloss.merging.pruning.node_rates import NodeRates
from mloss.merging.pruning.row_wise import NodeWise, RowStep, check_untied
from mloss.states import State


def by_node(
    base: State,
    sources: Sequence[State],
    *,
    rest: State,
    rates: NodeRates | None,
    step: RowStep,
    scale: float,
) -> State:
    """Merge the layers that have `rates` node by node, and everything else as `rest`.

    `step` prunes and combines a layer's rows, a node's row and its bias together, by
    the nodes' rates. Without rates it is `rest`. Raises ValueError where the base has
    no such parameter, or not as many nodes, and where one is tied to another.
    """
    if rates is None:
        return rest
    for key, layer in rates.layer_of.items():
        if key not in base:
            raise ValueError(f"the base has no {key!r}, which the rates name")
        if base[key].shape[:1] != rates.rates[layer].shape:
            raise ValueError(
                f"{key!r} has shape {tuple(base[key].shape)}, and there are keep rates "
                f"of {len(rates.rates[layer])} nodes"
            )
    check_untied(base, rates.layer_of)
    return NodeWise(
        base,
        sources,
        rest=rest,
        layers=rates.layers,
        rates=rates.rates,
        step=step,
        scale=scale,
    )

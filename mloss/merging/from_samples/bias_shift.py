"""Node means that a linear layer takes out of its input, by way of its bias."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from mloss.batches import Batch
from mloss.merging.from_samples.layers_entered import layers_entered
from mloss.merging.from_samples.regression import bias_key, weight_key
from mloss.merging.task_vectors import moved
from mloss.sites import Site, find_sites
from mloss.states import State
from mloss.streaming import streamed


def foldable_sites(
    model: nn.Module, state: State, example: Batch
) -> list[tuple[Site, tuple[str, ...]]]:
    """Sites in forward order, each with the linear layers that its nodes enter.

    Sites whose nodes enter none, as a pooler's, are left out. Raises ValueError where
    a layer that is entered has no bias to fold into, and where no site is left.
    """
    with streamed(model, state):
        sites = find_sites(model, example)
        entered = layers_entered(model, sites, example)
    found = [(site, entered[site.layer]) for site in sites if entered[site.layer]]
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no activation whose output enters an "
            "nn.Linear: there is no bias to fold into"
        )
    for site, names in found:
        for name in names:
            if bias_key(name) not in state:
                raise ValueError(
                    f"{name!r}, which the nodes of {site.layer!r} enter, has no bias "
                    "to fold into"
                )
    return found


def shifted_biases(
    state: State, layers: Sequence[str], excess: Float[Tensor, " node"]
) -> dict[str, Tensor]:
    """b - W excess for each layer, in float64 and rounded once."""
    return {
        bias_key(name): moved(
            state[bias_key(name)], -(state[weight_key(name)].double() @ excess)
        )
        for name in layers
    }

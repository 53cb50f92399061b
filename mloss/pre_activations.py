"""What the layers of a site make of one shared input, in any model's parameters."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from mloss.sites import Site
from mloss.states import State


def node_parameters(model: nn.Module, site: Site) -> list[str]:
    """State keys of the parameters of a site's nodes, one row for each node.

    Row i of the weight and entry i of the bias, of the layer and of what else is
    applied to the same node, are the parameters linearly correlated with node i
    (paper Definition 3.2).
    """
    return [
        f"{name}.{parameter}"
        for name in site.modules
        for parameter, _ in model.get_submodule(name).named_parameters()
    ]


def pre_activations(
    model: nn.Module, site: Site, state: State, *, inputs: Tensor
) -> Float[Tensor, "sample *token node"]:
    """H = W x + b, normalised where the site has a norm, with what a state holds.

    Computed in the precision of the model and returned in float64: what M-Loss needs
    are differences between models, and f is to add no rounding to those.
    """
    h = _applied(model, site.layer, state, inputs)
    if site.norm is not None:
        h = _applied(model, site.norm, state, h)
    return _nodes_last(model.get_submodule(site.layer), h)


def multipliers(
    model: nn.Module, site: Site, state: State, *, inputs: Tensor
) -> Float[Tensor, "sample *token node"] | None:
    """Output of the site's `up` layer, which its activation's is multiplied by."""
    if site.up is None:
        return None
    h = _applied(model, site.up, state, inputs)
    return _nodes_last(model.get_submodule(site.up), h)


def own_state(model: nn.Module, name: str, state: State) -> Mapping[str, Tensor]:
    """Entries of a state that belong to one submodule, by its own names for them."""
    keys = model.get_submodule(name).state_dict()
    return {key: state[f"{name}.{key}"] for key in keys}


def _applied(model: nn.Module, name: str, state: State, x: Tensor) -> Tensor:
    own = dict(own_state(model, name, state))
    result: Tensor = functional_call(model.get_submodule(name), own, (x,))
    return result


def _nodes_last(layer: nn.Module, h: Tensor) -> Tensor:
    wide = h.double()
    return wide if isinstance(layer, nn.Linear) else wide.movedim(1, -1)

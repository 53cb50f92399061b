"""What the layers of a site make of one shared input, in any model's parameters."""

from collections.abc import Mapping
from dataclasses import dataclass

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
    h = _applied(model, site.layer, own_state(model, site.layer, state), inputs)
    if site.norm is not None:
        h = _applied(model, site.norm, own_state(model, site.norm, state), h)
    return _nodes_last(model.get_submodule(site.layer), h)


def multipliers(
    model: nn.Module, site: Site, state: State, *, inputs: Tensor
) -> Float[Tensor, "sample *token node"] | None:
    """Output of the site's `up` layer, which its activation's is multiplied by."""
    if site.up is None:
        return None
    h = _applied(model, site.up, own_state(model, site.up, state), inputs)
    return _nodes_last(model.get_submodule(site.up), h)


@dataclass(frozen=True)
class Reading:
    """Pre-activations of one model at a site, and what its activation multiplies."""

    h: Float[Tensor, "sample token node"]
    up: Float[Tensor, "sample token node"] | None

    def at(self, *index: slice) -> "Reading":
        """What is made of some samples, or of some samples and tokens."""
        return Reading(self.h[index], None if self.up is None else self.up[index])


@dataclass(frozen=True)
class SiteLayers:
    """The layers of a site with one model's parameters, held while they are used."""

    model: nn.Module
    site: Site
    parameters: Mapping[str, Mapping[str, Tensor]]

    @classmethod
    def of(cls, model: nn.Module, site: Site, state: State) -> "SiteLayers":
        """Read from a state what belongs to the site."""
        own = {name: dict(own_state(model, name, state)) for name in site.modules}
        return cls(model, site, own)

    @property
    def layer(self) -> nn.Module:
        """The site's linear layer or convolution."""
        return self.model.get_submodule(self.site.layer)

    def __call__(self, x: Tensor) -> Reading:
        """Apply them to inputs [sample, ...], in the precision of the parameters.

        The positions of a convolution, or all axes between samples and nodes, are the
        tokens; without any there is one.
        """
        site = self.site
        h = self._applied(site.layer, x)
        if site.norm is not None and isinstance(self.layer, nn.Linear):
            # Its second axis is that of the nodes, which tokens would take.
            h = self._applied(site.norm, h.flatten(0, -2)).view_as(h)
        elif site.norm is not None:
            h = self._applied(site.norm, h)
        up = None if site.up is None else self._applied(site.up, x)
        layer = self.layer
        return Reading(by_token(layer, h), None if up is None else by_token(layer, up))

    def _applied(self, name: str, x: Tensor) -> Tensor:
        return _applied(self.model, name, self.parameters[name], x)


def by_token(
    layer: nn.Module, output: Float[Tensor, "sample ..."]
) -> Float[Tensor, "sample token node"]:
    """Output of a linear layer or a convolution with one axis of tokens, nodes last."""
    h = output if isinstance(layer, nn.Linear) else output.movedim(1, -1)
    return h.flatten(1, -2) if h.ndim > 2 else h[:, None]


def own_state(model: nn.Module, name: str, state: State) -> Mapping[str, Tensor]:
    """Entries of a state that belong to one submodule, by its own names for them."""
    keys = model.get_submodule(name).state_dict()
    return {key: state[f"{name}.{key}"] for key in keys}


class _Unhooked(nn.Module):
    """A module without its hooks, so that it can be applied from within one."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.module.forward(x)
        return result


def _applied(
    model: nn.Module, name: str, own: Mapping[str, Tensor], x: Tensor
) -> Tensor:
    module = _Unhooked(model.get_submodule(name))
    parameters = {f"module.{key}": value for key, value in own.items()}
    result: Tensor = functional_call(module, parameters, (x,))
    return result


def _nodes_last(layer: nn.Module, h: Tensor) -> Tensor:
    wide = h.double()
    return wide if isinstance(layer, nn.Linear) else wide.movedim(1, -1)

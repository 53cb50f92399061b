"""What a linear layer of several models makes of one shared input."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from mloss.states import State


def node_parameters(layer: nn.Module, name: str) -> list[str]:
    """State keys of a layer's own weight and bias: its rows are its nodes' LCP.

    Row i of the weight and entry i of the bias are the parameters linearly correlated
    with node i (paper Definition 3.2).
    """
    return [f"{name}.{parameter}" for parameter, _ in layer.named_parameters()]


def pre_activations(
    layer: nn.Module, state: State, *, name: str, inputs: Tensor
) -> Float[Tensor, "sample *token node"]:
    """H = W x + b with the W and b that a state holds for the layer, nodes last.

    Computed in the precision of the model and returned in float64: what M-Loss needs
    are differences between models, and f is to add no rounding to those.
    """
    keys = node_parameters(layer, name)
    own = {key.removeprefix(f"{name}."): state[key] for key in keys}
    h: Tensor = functional_call(layer, own, (inputs,)).double()
    return h if isinstance(layer, nn.Linear) else h.movedim(1, -1)

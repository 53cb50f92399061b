"""The linear layers of a network, as it runs."""

from collections import Counter
from functools import partial

from torch import nn

from mloss.batches import Batch
from mloss.inference import called
from mloss.recording import visited
from mloss.states import State
from mloss.streaming import streamed


def linear_layers(model: nn.Module, state: State, example: Batch) -> list[str]:
    """Names of the nn.Linear that have parameters of their own, in forward order.

    Seen in one pass of `example`. Left out are layers that the network uses without
    calling them, that it runs more than once, and whose parameters have a second name,
    as a head's that are the embedding's.
    """
    runs: Counter[str] = Counter()

    def count(name: str, *_: object) -> None:
        runs[name] += 1

    own = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not _shared(model, module)
    ]
    with (
        streamed(model, state),
        visited(model, {name: partial(count, name) for name in own}),
    ):
        called(model, example)
    return [name for name, times in runs.items() if times == 1]


def _shared(model: nn.Module, module: nn.Module) -> bool:
    """Whether a parameter of the module goes by more than one name in the model."""
    every = [id(p) for _, p in model.named_parameters(remove_duplicate=False)]
    return any(every.count(id(p)) > 1 for p in module.parameters())

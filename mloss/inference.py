"""Running models for their outputs: evaluation mode, no gradients, any state."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mloss.states import State

Data = Tensor | Iterable[Tensor]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Keep a model in evaluation mode without gradients, then as it was before."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        for module in training:
            module.training = True


def batches(data: Data) -> Iterator[Tensor]:
    """Batches of inputs, samples along the first axis; one tensor is one batch.

    Raises TypeError for a batch that is not a tensor, and ValueError for one without
    samples, for floating-point numbers along one axis, which are one sample without
    its batch axis, and for data without batches.
    """
    index = -1
    for index, batch in enumerate([data] if isinstance(data, Tensor) else data):
        if not isinstance(batch, Tensor):
            raise TypeError(
                f"batch {index} of data must be a tensor, got {type(batch).__name__}"
            )
        if batch.ndim == 0 or len(batch) == 0:
            raise ValueError(f"batch {index} of data has no samples")
        if batch.ndim == 1 and batch.is_floating_point():
            raise ValueError(
                f"batch {index} of data must have shape [sample, ...], got "
                f"{tuple(batch.shape)}: one sample is a batch of length 1"
            )
        yield batch
    if index < 0:
        raise ValueError("data must hold at least one batch, got none")


def architecture(
    model: nn.Module | None,
    sources: Iterable[nn.Module | State],
    **others: nn.Module | State,
) -> nn.Module:
    """Return `model`, or else the first module among the others and the sources.

    Raises ValueError when there is none, since state dicts alone cannot be run, and
    naming the first module whose printed form, its layers and their options, differs
    from that of the one returned. What a module computes in its own forward is not
    in the printed form.
    """
    candidates = {"model": model} | others
    candidates |= {f"source {index}": source for index, source in enumerate(sources)}
    modules = {n: m for n, m in candidates.items() if isinstance(m, nn.Module)}
    if not modules:
        raise ValueError("model must give the architecture that state dicts run in")
    first, run_in = next(iter(modules.items()))
    for name, module in modules.items():
        if repr(module) != repr(run_in):
            raise ValueError(
                f"{name} is another architecture than {first}: "
                "their printed layers or options differ"
            )
    return run_in


def check_fits(model: nn.Module, state: State) -> None:
    """Raise ValueError naming a key of the state that is not the architecture's."""
    expected = model.state_dict()
    if unmatched := sorted(expected.keys() ^ state.keys()):
        owner = "the state" if unmatched[0] in state else "model"
        raise ValueError(f"only {owner} has the key {unmatched[0]!r}")
    for key, value in expected.items():
        if value.shape != state[key].shape:
            raise ValueError(
                f"{key!r} has shape {tuple(state[key].shape)} in the state, "
                f"{tuple(value.shape)} in model"
            )


def forward(model: nn.Module, state: State, batch: Tensor) -> Tensor:
    """Output of the architecture with the parameters of a state that fits it.

    The batch is moved to the device of the state. Raises TypeError where the output
    is not one tensor.
    """
    device = next(iter(state.values())).device
    # Every tied parameter has its own entry in the state, so none is tied again.
    output = functional_call(model, dict(state), (batch.to(device),), tie_weights=False)
    if not isinstance(output, Tensor):
        raise TypeError(
            f"{type(model).__name__} must return one tensor, "
            f"got {type(output).__name__}"
        )
    return output

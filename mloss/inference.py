"""Running models for their outputs: evaluation mode, no gradients, any state."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mloss.batches import Batch, on_device
from mloss.states import State


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


def called(model: nn.Module, batch: Batch) -> object:
    """Output of a model as it is, for a batch that is moved to its device.

    A model on the meta device gets its parameters elsewhere; the batch stays put.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    moved = batch if device.type == "meta" else on_device(batch, device)
    return model(moved) if isinstance(moved, Tensor) else model(**moved)


def forward(model: nn.Module, state: State, batch: Batch) -> Tensor:
    """Output of the architecture with the parameters of a state that fits it.

    The batch is moved to the device of the state. Of an output with named parts, as
    `transformers` has, it is the first tensor: logits, embeddings or hidden states.
    Raises TypeError where the output is neither that nor one tensor.
    """
    moved = on_device(batch, next(iter(state.values())).device)
    args, kwargs = ((moved,), {}) if isinstance(moved, Tensor) else ((), dict(moved))
    # Every tied parameter has its own entry in the state, so none is tied again.
    return first_tensor(
        functional_call(model, dict(state), args, kwargs, tie_weights=False),
        owner=type(model).__name__,
    )


def first_tensor(output: object, *, owner: str) -> Tensor:
    """Return a model's output where it is a tensor, or else its first named one."""
    parts = list(output.values()) if isinstance(output, Mapping) else [output]
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if not tensors:
        raise TypeError(
            f"{owner} must return one tensor or a mapping of them, "
            f"got {type(output).__name__}"
        )
    return tensors[0]

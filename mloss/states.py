"""Parameters of models as state dicts that can be compared and merged."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]


def state_of(model: nn.Module | State) -> dict[str, Tensor]:
    """Parameters and persistent buffers of a module or state dict, detached.

    The tensors are the model's own, not copies. Raises TypeError for anything else.
    """
    state = model.state_dict() if isinstance(model, nn.Module) else model
    if not isinstance(state, Mapping):
        raise TypeError(
            f"expected a module or a state dict, got {type(model).__name__}"
        )
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{key!r} must be a tensor, got {type(value).__name__}")
    return {key: value.detach() for key, value in state.items()}


def listed(sources: Iterable[nn.Module | State]) -> list[nn.Module | State]:
    """Source models as a list, so that a generator can be gone through twice.

    Raises TypeError for one model in place of several, and ValueError for none.
    """
    if isinstance(sources, nn.Module | Mapping):
        raise TypeError("sources must be a sequence of models, got one model")
    if not (models := list(sources)):
        raise ValueError("sources must hold at least one model, got none")
    return models


def matched(
    base: nn.Module | State, sources: Iterable[nn.Module | State]
) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """States of a base model and its source models, once they are known to match.

    Raises ValueError naming the key and the source where the sources do not have the
    keys, shapes, dtypes and devices of the base, where an entry is not finite, and
    where integer entries (counters, position ids) differ: those cannot be merged.
    """
    start = state_of(base)
    _check_finite(start, "the base")
    states = [state_of(source) for source in listed(sources)]
    for index, state in enumerate(states):
        _check_matches(start, state, f"source {index}")
    return start, states


def _check_matches(base: State, state: State, owner: str) -> None:
    if missing := [key for key in base if key not in state]:
        raise ValueError(f"{owner} has no {missing[0]!r}, which the base has")
    if extra := [key for key in state if key not in base]:
        raise ValueError(f"{owner} has {extra[0]!r}, which the base has not")
    for key, reference in base.items():
        for aspect in ("shape", "dtype", "device"):
            expected, got = getattr(reference, aspect), getattr(state[key], aspect)
            if expected != got:
                raise ValueError(
                    f"{key!r} has {aspect} {got} in {owner}, {expected} in the base"
                )
        if not mergeable(reference) and not torch.equal(reference, state[key]):
            raise ValueError(
                f"{key!r} ({reference.dtype}) cannot be merged and differs "
                f"between {owner} and the base"
            )
    _check_finite(state, owner)


def _check_finite(state: State, owner: str) -> None:
    for key, value in state.items():
        if mergeable(value) and not torch.isfinite(value).all():
            raise ValueError(f"{key!r} of {owner} has a value that is not finite")


def mergeable(value: Tensor) -> bool:
    """Whether a mean of such entries makes sense: floating point, no integers."""
    return value.is_floating_point()

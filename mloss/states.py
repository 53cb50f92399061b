"""Parameters of models as state dicts that can be compared and merged."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from mloss.finite import check_finite

State = Mapping[str, Tensor]
Given = TypeVar("Given")


def state_of(model: nn.Module | State) -> State:
    """Parameters and persistent buffers of a module or state dict, detached.

    The tensors are the model's own, not copies. A mapping that is no dict looks its
    entries up when they are asked for, so that what is on disk stays there. Raises
    TypeError for anything else, and for an entry that is no tensor when it is met.
    """
    state = model.state_dict() if isinstance(model, nn.Module) else model
    if not isinstance(state, Mapping):
        raise TypeError(
            f"expected a module or a state dict, got {type(model).__name__}"
        )
    lazy = LazyState(state, change=torch.detach)
    return dict(lazy) if isinstance(state, dict) else lazy


class LazyState(Mapping[str, Tensor]):
    """A state whose entries are read, and changed in some way, when looked up."""

    def __init__(
        self, state: Mapping[str, Tensor], *, change: Callable[[Tensor], Tensor]
    ) -> None:
        self._state, self._change = state, change

    def __getitem__(self, key: str) -> Tensor:
        value = self._state[key]
        if not isinstance(value, Tensor):
            raise TypeError(f"{key!r} must be a tensor, got {type(value).__name__}")
        return self._change(value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)

    def __contains__(self, key: object) -> bool:
        return key in self._state


def listed(sources: Iterable[Given]) -> list[Given]:
    """Source models as a list, so that a generator can be gone through twice.

    Raises TypeError for one model in place of several, and ValueError for none.
    """
    if isinstance(sources, nn.Module | Mapping | str | os.PathLike):
        raise TypeError("sources must be a sequence of models, got one model")
    if not (models := list(sources)):
        raise ValueError("sources must hold at least one model, got none")
    return models


def matched(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    known_finite: bool = False,
) -> tuple[State, list[State]]:
    """States of a base model and its source models that match, or say where not.

    Raises ValueError naming the key and the source where the sources do not have the
    keys, shapes, dtypes and devices of the base, where an entry is not finite (unless
    `known_finite`), and where integer entries (counters, position ids) differ: those
    cannot be merged. Names are compared at once, and so are all entries of dicts and
    modules. An entry of any other mapping, which may be on disk, is looked at when it
    is first looked up: it need not be read for this alone.
    """
    given = listed(sources)
    start = _checked(base, None, owner="the base", known_finite=known_finite)
    states: list[State] = [
        _checked(source, start, owner=f"source {index}", known_finite=known_finite)
        for index, source in enumerate(given)
    ]
    return start, states


def _checked(
    model: nn.Module | State, base: State | None, *, owner: str, known_finite: bool
) -> State:
    """The state of a model, checked, or to be checked as its entries are looked up."""
    state = state_of(model)
    if not isinstance(state, dict):
        # What comes from disk says where; anything else is called by its place.
        owner = getattr(model, "source", owner)
    checked = _Checked(state, base, owner, known_finite=known_finite)
    if not isinstance(state, dict):
        return checked
    for key in state:
        checked[key]
    return state


class _Checked(Mapping[str, Tensor]):
    """A state each of whose entries is compared with the base's when first read.

    Raises ValueError at once where the names differ.
    """

    def __init__(
        self, state: State, base: State | None, owner: str, *, known_finite: bool
    ) -> None:
        self._state, self._base, self._owner = state, base, owner
        self._known_finite = known_finite
        self._seen: set[str] = set()
        if base is not None:
            _check_same_names(base, state, owner)

    def __getitem__(self, key: str) -> Tensor:
        value = self._state[key]
        if key not in self._seen:
            if self._base is not None:
                _check_like(self._base[key], value, key, self._owner)
            if not self._known_finite:
                check_finite(value, name=key, owner=self._owner)
            self._seen.add(key)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)

    def __contains__(self, key: object) -> bool:
        return key in self._state


def _check_same_names(base: State, state: State, owner: str) -> None:
    # Of a state on disk, to ask whether it holds a key may be to read the entry.
    known, held = dict.fromkeys(base), dict.fromkeys(state)
    if missing := [key for key in known if key not in held]:
        raise ValueError(f"{owner} has no {missing[0]!r}, which the base has")
    if extra := [key for key in held if key not in known]:
        raise ValueError(f"{owner} has {extra[0]!r}, which the base has not")


def _check_like(reference: Tensor, value: Tensor, key: str, owner: str) -> None:
    for aspect in ("shape", "dtype", "device"):
        expected, got = getattr(reference, aspect), getattr(value, aspect)
        if expected != got:
            raise ValueError(
                f"{key!r} has {aspect} {got} in {owner}, {expected} in the base"
            )
    if not mergeable(reference) and not torch.equal(reference, value):
        raise ValueError(
            f"{key!r} ({reference.dtype}) cannot be merged and differs "
            f"between {owner} and the base"
        )


def mergeable(value: Tensor) -> bool:
    """Whether a mean of such entries makes sense: floating point, no integers."""
    return value.is_floating_point()

"""Merged states whose entries are computed one by one, as they are looked up."""

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from mloss.states import State, mergeable


class Entrywise(Mapping[str, Tensor]):
    """A merge whose floating-point entries a function gives by their key.

    Integers (counters, position ids) are copies of the base's. Nothing is kept: an
    entry that is looked up twice is computed twice.
    """

    def __init__(self, base: State, merged: Callable[[str], Tensor]) -> None:
        self._base, self._merged = base, merged

    def __getitem__(self, key: str) -> Tensor:
        value = self._base[key]
        return self._merged(key) if mergeable(value) else value.clone()

    def __iter__(self) -> Iterator[str]:
        return iter(self._base)

    def __len__(self) -> int:
        return len(self._base)

    def __contains__(self, key: object) -> bool:
        return key in self._base

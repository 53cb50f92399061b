"""States with some entries replaced."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from mloss.states import State


class Overlaid(Mapping[str, Tensor]):
    """A state that looks its entries up in `changes` first.

    Changes may be added while the state is in use, as a merge that goes through the
    network layer by layer finds them.
    """

    def __init__(self, state: State, changes: State) -> None:
        self._state, self._changes = state, changes

    def __getitem__(self, key: str) -> Tensor:
        changed = self._changes.get(key)
        return self._state[key] if changed is None else changed

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)

    def __contains__(self, key: object) -> bool:
        return key in self._state

"""Whether sources come from their base, noted in passing while they are read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock

import torch
from torch import Tensor

from mloss.checkpoints.checkpoint import Checkpoint, Entry

# At most so many values of each tensor are compared, evenly spread over it.
_SAMPLE = 4096


@dataclass
class Kinship:
    """How far a source is from its base, by some values of every tensor read so far.

    `source` is what messages call it; `same` says whether all values that were read
    are the base's, `unread` what was not read.
    """

    source: str
    unread: set[str]
    same: bool = True
    _apart: float = field(default=0.0, repr=False)
    _size: float = field(default=0.0, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    @property
    def complete(self) -> bool:
        """Whether every tensor that can be compared has been read."""
        return not self.unread

    @property
    def relative(self) -> float:
        """Norm of the difference over that of the base; infinite if only that is 0."""
        if self._size > 0:
            return math.sqrt(self._apart / self._size)
        return 0.0 if self._apart == 0 else math.inf

    def note(
        self, name: str, value: Tensor, *, base: Checkpoint, sample: Tensor
    ) -> None:
        """Compare a tensor that is read for the first time with the base's."""
        ours = _sample(value)
        apart, size = (float(v.square().sum()) for v in (ours - sample, sample))
        same = apart == 0 and torch.equal(value, base[name].to(value.dtype))
        # Several tensors are read at a time.
        with self._lock:
            if name in self.unread:
                self.unread.discard(name)
                self._apart += apart
                self._size += size
                self.same = self.same and same


def with_kinship(
    base: Checkpoint, sources: Sequence[Checkpoint]
) -> tuple[list[Checkpoint], list[Kinship]]:
    """The sources, under the base's names, that note their kinship as they are read."""
    names = {n for n, entry in base.entries.items() if entry.dtype.is_floating_point}
    samples: dict[str, Tensor] = {}
    noting, found = [], []
    for source in sources:
        kinship = Kinship(source.source, names & source.entries.keys())
        entries = {
            name: replace(
                entry, read=partial(_read, base, samples, kinship, name, entry)
            )
            for name, entry in source.entries.items()
        }
        noting.append(replace(source, entries=entries))
        found.append(kinship)
    return noting, found


def _read(
    base: Checkpoint,
    samples: dict[str, Tensor],
    kinship: Kinship,
    name: str,
    entry: Entry,
) -> Tensor:
    value = entry.read()
    if name in kinship.unread and entry.shape == base.entries[name].shape:
        if name not in samples:
            samples[name] = _sample(base[name])
        kinship.note(name, value, base=base, sample=samples[name])
    return value


def _sample(value: Tensor) -> Tensor:
    step = max(1, math.ceil(value.numel() / _SAMPLE))
    return value.reshape(-1)[::step].double()

"""A model on disk, of which one tensor at a time is read."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

Layout = Literal["transformers", "open_clip", "lora", "plain"]


@dataclass(frozen=True)
class Entry:
    """A stored tensor: what is known of it beforehand, and how to read it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]


@dataclass(frozen=True, eq=False)
class Checkpoint(Mapping[str, Tensor]):
    """A state whose tensors stay on disk until they are asked for, one by one.

    `source` is what messages call it. `layout` says whose names the tensors have:
    those of `transformers`, of `open_clip`, of a `peft` adapter ("lora"), or others
    ("plain"). `config` is the JSON object beside the weights: `config.json`,
    `open_clip_config.json` or `adapter_config.json`. `directory` holds the files that
    belong to the model, its tokenizer for one.
    """

    source: str
    entries: Mapping[str, Entry]
    layout: Layout = "plain"
    config: Mapping[str, Any] | None = None
    directory: Path | None = None

    def tensor(self, name: str) -> Tensor:
        """Read one tensor. Writing to it does not change the file."""
        return self.entries[name].read()

    def __getitem__(self, name: str) -> Tensor:
        return self.tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __repr__(self) -> str:
        return f"Checkpoint({self.source!r}, {self.layout}, {len(self)} tensors)"

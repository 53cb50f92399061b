"""What to call models in a table."""

from collections.abc import Sequence
from pathlib import Path


def short_names(names: Sequence[str]) -> list[str]:
    """Last parts of paths, where those tell the models apart."""
    last = [Path(name).name for name in names]
    return last if len(set(last)) == len(names) else list(names)

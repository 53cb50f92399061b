"""The first few of many names, for messages of one line."""

from collections.abc import Collection


def listing(names: Collection[str], *, most: int = 3) -> str:
    """The first names in order, quoted, and the number of the others."""
    first = ", ".join(repr(name) for name in sorted(names)[:most])
    rest = len(names) - most
    return f"{first} and {rest} more" if rest > 0 else first

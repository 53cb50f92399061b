"""What a result was made from."""

import argparse
from collections.abc import Collection
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from mloss.commands.family import Family

# What has an entry of its own, and what does not change a result.
_ELSEWHERE = ("command", "base", "sources", "weights", "data", "out", "json", "run")
_LIBRARIES = ("mloss", "torch", "transformers", "numpy", "scipy")


def provenance(
    options: argparse.Namespace, family: Family, *, unused: Collection[str] = ()
) -> dict[str, object]:
    """Models, data, every other option and versions, as values that JSON has.

    Options that are `unused`, such as those of samples where there are none, are left
    out.
    """
    others = {
        name.replace("_", "-"): _plain(value)
        for name, value in vars(options).items()
        if name not in (*_ELSEWHERE, *unused)
    }
    return {
        "command": options.command,
        "base": options.base,
        "sources": list(options.sources),
        "weights": family.weights.tolist(),
        "data": [str(path) for path in options.data or ()],
        "options": others,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version_of(name) for name in _LIBRARIES},
    }


def _plain(value: object) -> object:
    known = value is None or isinstance(value, str | int | float | list)
    return value if known else str(value)


def version_of(library: str) -> str:
    """The version of a library, or that it is not installed."""
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"

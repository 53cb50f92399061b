"""What a result was made from."""

import argparse
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from mloss.commands.family import Family

_LIBRARIES = ("mloss", "torch", "transformers", "numpy", "scipy")


def provenance(options: argparse.Namespace, family: Family) -> dict[str, object]:
    """Models, data, options and versions, as values that JSON has."""
    return {
        "command": options.command,
        "base": options.base,
        "sources": list(options.sources),
        "weights": family.weights.tolist(),
        "data": [str(path) for path in options.data or ()],
        "samples": options.samples,
        "seed": options.seed,
        "device": str(options.device),
        "dtype": options.dtype or "as stored, float32 at least",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **{f"{name} version": _version(name) for name in _LIBRARIES},
    }


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"

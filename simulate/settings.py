"""What every number of a sweep depends on, besides the parameters of its cell."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = 1  # of the journal and of the table's metadata


@dataclass(frozen=True)
class Settings:
    """`seed` is the root of all streams, `n` the largest round, `rtol` the aim."""

    seed: str
    method: str
    n: int
    rtol: float | None
    versions: Mapping[str, str]

    def as_header(self) -> dict[str, Any]:
        """What a file of results begins with."""
        return {"format": FORMAT, "settings": vars(self)}

    def require_same(self, header: Mapping[str, Any], *, path: Path) -> None:
        """Refuse a file with another format or other settings with a ValueError."""
        if header.get("format") != FORMAT:
            raise ValueError(
                f"{path} has format {header.get('format')!r} where this version of "
                f"mloss has {FORMAT}; finish it with the version that began it, or "
                "choose another file"
            )
        there, here = _flat(header.get("settings", {})), _flat(vars(self))
        differing = [
            f"{name} is {there.get(name)} there and {here[name]} here"
            for name in here
            if there.get(name) != here[name]
        ]
        if differing:
            raise ValueError(
                f"{path} holds another sweep: {'; '.join(differing)}; choose another "
                "file, or the same settings and versions"
            )


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in settings.items() if name != "versions"}
    return {**own, **settings.get("versions", {})}

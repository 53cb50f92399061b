"""What a run was: versions, command, seed and duration."""

import platform
from dataclasses import dataclass
from importlib.metadata import version

PACKAGES = ("mloss", "numpy", "scipy", "sympy", "torch")


@dataclass(frozen=True)
class Provenance:
    """All it takes to repeat a run, and the seconds it took."""

    command: str
    seed: int
    seconds: float

    def versions(self) -> dict[str, str]:
        """Versions of Python and of the packages the numbers depend on."""
        found = {package: version(package) for package in PACKAGES}
        return {"python": platform.python_version(), **found}

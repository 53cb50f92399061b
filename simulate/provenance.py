"""Where numbers come from: versions, the code's commit, the machine."""

import platform
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("mloss", "numpy", "scipy")


@dataclass(frozen=True)
class Run:
    """One start of a sweep; a sweep that was resumed has several.

    `commit` is the last that changed this package, with "+changes" where its files
    have moved on since, and empty outside a checkout.
    """

    started: str
    commit: str
    python: str
    platform: str
    workers: str

    @classmethod
    def now(cls, workers: str) -> "Run":
        """A run that starts here and now on these workers, in words."""
        return cls(
            started=datetime.now(UTC).isoformat(),
            commit=code_commit(),
            python=platform.python_version(),
            platform=platform.platform(),
            workers=workers,
        )


@cache
def versions() -> dict[str, str]:
    """Versions of what the numbers depend on, with a digest of this package's code."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    code = sha256(b"".join(source.read_bytes() for source in sources))
    return {
        **{package: version(package) for package in PACKAGES},
        "code": code.hexdigest()[:16],
    }


@cache
def code_commit() -> str:
    """The commit of this package's code, as `Run` describes it."""
    commit = _git("log", "-1", "--format=%H")
    return commit + "+changes" if commit and _git("status", "--porcelain") else commit


def _git(*arguments: str) -> str:
    """What git says about this folder; nothing where it cannot tell."""
    git = shutil.which("git")
    if git is None:
        return ""
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments, no shell
            [git, *arguments, "--", "."],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()

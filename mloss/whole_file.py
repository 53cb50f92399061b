"""A file that appears whole or not at all."""

from pathlib import Path
from tempfile import TemporaryDirectory


def write_whole(path: Path, content: bytes) -> None:
    """Write under a scratch name beside `path`, then rename in one step.

    Raises OSError where the folder is missing or takes no files.
    """
    with TemporaryDirectory(dir=path.parent, prefix=".unfinished-") as scratch:
        whole = Path(scratch) / path.name
        whole.write_bytes(content)
        whole.replace(path)

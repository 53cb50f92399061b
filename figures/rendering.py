"""A figure as image files: the same bytes on every run, each file whole or absent."""

from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib as mpl
from matplotlib.figure import Figure

KINDS = ("png", "svg")
PNG_DPI = 250


def rendered(figure: Figure, *, kind: str) -> bytes:
    """Render as one of `KINDS`; the SVG carries no date and no random ids.

    Raises ValueError for another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    metadata = {"Date": None} if kind == "svg" else None
    buffer = BytesIO()
    with mpl.rc_context({"svg.hashsalt": "figures"}):
        figure.savefig(buffer, format=kind, dpi=PNG_DPI, metadata=metadata)
    return buffer.getvalue()


def save(figure: Figure, name: str, *, out: Path) -> list[Path]:
    """Write name.png and name.svg into the folder `out`, and return their paths."""
    paths = [out / f"{name}.{kind}" for kind in KINDS]
    for path, kind in zip(paths, KINDS, strict=True):
        with TemporaryDirectory(dir=out, prefix=".figure-") as scratch:
            whole = Path(scratch) / path.name
            whole.write_bytes(rendered(figure, kind=kind))
            whole.replace(path)
    return paths

"""The figures of the report, drawn once and rendered for file and page."""

from dataclasses import dataclass

from figures.gallery import GALLERY
from figures.rendering import KINDS, rendered


@dataclass(frozen=True)
class Drawn:
    """A figure by name with its caption, as the bytes of each kind of file."""

    name: str
    caption: str
    images: dict[str, bytes]


def drawn(name: str, *, seed: int) -> Drawn:
    """Draw one figure of the gallery."""
    plate = GALLERY[name]
    figure = plate.draw(seed)
    images = {kind: rendered(figure, kind=kind) for kind in KINDS}
    return Drawn(name, plate.caption, images)

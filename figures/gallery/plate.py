"""What the gallery holds of a figure."""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Plate:
    """A figure of the gallery: its caption and how to draw it from a seed."""

    caption: str
    draw: Callable[[int], Figure]

"""Every figure by name: compute with the other packages, then draw.

The one room of this package that knows them; the rest take arrays.
"""

from collections.abc import Mapping
from types import MappingProxyType

from figures.gallery import embedded_network, one_node, random_networks
from figures.gallery.plate import Plate

GALLERY: Mapping[str, Plate] = MappingProxyType(
    one_node.PLATES | random_networks.PLATES | embedded_network.PLATES
)

__all__ = ["GALLERY", "Plate"]

"""Keep rates of nodes: what fraction of a node's parameters survives pruning."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mloss.whole_file import write_whole

_KEYS = "parameters"


@dataclass(frozen=True)
class NodeRates:
    """For some layers, the keys of their parameters and each node's keep rate.

    The first axis of every parameter is the node; a node's rows, with its bias where
    that is among the keys, have one budget together (paper Definition 3.2). Raises
    ValueError where a layer has rates and no keys or the other way, where two layers
    have one key, and for rates that are not fractions in [0, 1].
    """

    layers: Mapping[str, tuple[str, ...]]
    rates: Mapping[str, Float[Tensor, " node"]]

    def __post_init__(self) -> None:
        if different := sorted(self.layers.keys() ^ self.rates.keys()):
            raise ValueError(f"{different[0]!r} must have both keys and rates")
        named = Counter(key for keys in self.layers.values() for key in keys)
        if repeated := [key for key, count in named.items() if count > 1]:
            raise ValueError(f"{repeated[0]!r} must belong to one layer only")
        for layer, rates in self.rates.items():
            if not bool(((rates >= 0) & (rates <= 1)).all()):
                raise ValueError(f"rates of {layer!r} must be fractions in [0, 1]")

    @property
    def layer_of(self) -> dict[str, str]:
        """The layer of each parameter, by its key."""
        return {key: layer for layer, keys in self.layers.items() for key in keys}

    def save(self, path: Path) -> None:
        """Write the rates as safetensors, with the layers' keys in its metadata."""
        keys = json.dumps({layer: list(names) for layer, names in self.layers.items()})
        tensors = {layer: rates.contiguous() for layer, rates in self.rates.items()}
        write_whole(path, save(tensors, metadata={_KEYS: keys}))

    @classmethod
    def load(cls, path: Path) -> "NodeRates":
        """Read what `save` wrote. Raises ValueError where it is no such file."""
        try:
            with safe_open(path, framework="pt") as file:
                keys = json.loads((file.metadata() or {})[_KEYS])
                rates = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dict
            layers = {layer: tuple(map(_text, names)) for layer, names in keys.items()}
        except (
            *(SafetensorError, OSError, LookupError),
            *(TypeError, ValueError, AttributeError),
        ) as e:
            raise ValueError(
                f"{path} holds no keep rates, as mloss score writes them ({e})"
            ) from e
        return cls(layers, rates)


def _text(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is no key of a parameter")
    return name

"""Parameters of a network in groups: which block, and what they do there."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, get_args

from torch import nn

from mloss.sites import Site
from mloss.states import mergeable

Role = Literal["activation", "attention", "norm", "linear"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class ParameterGroup:
    """Keys of a state dict that belong to one block and play one role in it.

    "activation": the layers whose output goes into an activation, gated pairs with
    both. "attention": what lies in a module with Attention in its class's name, norms
    aside. "norm": gains, biases and running statistics of normalisations. "linear":
    all else, such as the second layer of an MLP, embeddings and heads.
    """

    block: str
    role: Role
    keys: tuple[str, ...]


def parameter_groups(
    model: nn.Module, sites: Sequence[Site]
) -> tuple[ParameterGroup, ...]:
    """Sort the floating-point entries of a state dict by block and role.

    A block is a numbered submodule, as "encoder.layers.3" (the first number in a key
    counts), or the largest submodule without numbered ones, as "encoder.embeddings".
    Both come in the order of the state.
    """
    keys = [key for key, value in model.state_dict().items() if mergeable(value)]
    trunks = {trunk for key in keys for trunk in _trunks(key)}
    into_activations = {name for site in sites for name in site.modules}
    grouped: dict[tuple[str, Role], list[str]] = {}
    for key in keys:
        block = next(prefix for prefix in _prefixes(key) if prefix not in trunks)
        role = _role(model, key, into_activations)
        grouped.setdefault((block, role), []).append(key)
    return tuple(
        ParameterGroup(block, role, tuple(keys))
        for (block, role), keys in grouped.items()
    )


def _prefixes(key: str) -> list[str]:
    return list(accumulate(key.split("."), "{}.{}".format))


def _trunks(key: str) -> list[str]:
    """Submodules above the first number in a key; none where there is no number."""
    parts = key.split(".")
    numbers = [depth for depth, part in enumerate(parts) if part.isdigit()]
    return _prefixes(key)[: numbers[0]] if numbers else []


def _role(model: nn.Module, key: str, into_activations: Collection[str]) -> Role:
    owner = key.rpartition(".")[0]
    if "Norm" in _kind(model, owner):
        return "norm"
    if owner in into_activations:
        return "activation"
    inside = any("Attention" in _kind(model, name) for name in _prefixes(owner))
    return "attention" if inside else "linear"


def _kind(model: nn.Module, name: str) -> str:
    return type(model.get_submodule(name)).__name__

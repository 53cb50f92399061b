"""Whether models can be merged at all: the same weights, and numbers in all of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mloss import finite
from mloss.checkpoints.checkpoint import Checkpoint
from mloss.checkpoints.listing import listing

# Options that change what a network computes without changing a shape.
_IDENTITY = {
    "model_type",
    "hidden_act",
    "hidden_activation",
    "activation_function",
    "quick_gelu",
    "num_attention_heads",
    "num_key_value_heads",
    "n_head",
    "heads",
    "head_width",
    "layer_norm_eps",
    "rms_norm_eps",
    "rope_theta",
}


def check_compatible(base: Checkpoint, sources: Sequence[Checkpoint]) -> None:
    """Raise ValueError unless all sources have the weights of the base, all finite.

    Names and shapes come first (`check_same_weights`); then every tensor of every model
    is read once, one at a time. Messages name the file, the weights and what to do.
    """
    check_same_weights(base, sources)
    for model in (base, *sources):
        check_finite(model)


def check_same_weights(base: Checkpoint, sources: Sequence[Checkpoint]) -> None:
    """Raise ValueError unless all sources have the base's names and shapes.

    No tensor is read. Sources must be under the base's names (`as_source`).
    """
    for source in sources:
        _check_same_weights(base, source)


def check_finite(model: Checkpoint) -> None:
    """Raise ValueError naming the first weight that holds a NaN or an infinity."""
    for name, entry in model.entries.items():
        if entry.dtype.is_floating_point:
            finite.check_finite(entry.read(), name=name, owner=model.source)


def _check_same_weights(base: Checkpoint, source: Checkpoint) -> None:
    _check_same_architecture(base, source)
    for owner, other in ((base, source), (source, base)):
        if lacking := owner.entries.keys() - other.entries.keys():
            raise ValueError(
                f"{other.source} lacks {listing(lacking)}, which {owner.source} has: "
                "only models of one architecture can be merged"
            )
    shapes = {
        name: (entry.shape, source.entries[name].shape)
        for name, entry in base.entries.items()
        if entry.shape != source.entries[name].shape
    }
    if shapes:
        name, (expected, got) = next(iter(shapes.items()))
        others = f" ({len(shapes) - 1} others differ)" if len(shapes) > 1 else ""
        raise ValueError(
            f"{name!r} has shape {_text(got)} in {source.source}, {_text(expected)} in "
            f"{base.source}{others}: only models of one size can be merged"
        )


def _check_same_architecture(base: Checkpoint, source: Checkpoint) -> None:
    if base.layout != source.layout:
        return
    expected, stated = _identity(base.config or {}), _identity(source.config or {})
    for option in expected.keys() & stated.keys():
        if stated[option] != expected[option]:
            raise ValueError(
                f"{source.source} is another architecture than {base.source}: "
                f"{option} {stated[option]!r}, not {expected[option]!r}"
            )


def _identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """What tells architectures apart, also in the configurations of parts."""
    options: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            options |= {f"{key}.{k}": v for k, v in _identity(value).items()}
        elif key in _IDENTITY:
            options[key] = value
    return options


def _text(shape: Iterable[int]) -> str:
    return str(list(shape))

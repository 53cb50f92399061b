"""Models built from the configuration that lies beside their weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from mloss.checkpoints.checkpoint import Checkpoint
from mloss.checkpoints.clip import to_transformers
from mloss.checkpoints.model_names import in_model


def load_model(
    checkpoint: Checkpoint, *, dtype: torch.dtype | None = None
) -> nn.Module:
    """Build the model of a checkpoint, in evaluation mode, with its weights in it.

    The class is the one of `transformers` that the configuration names; code that
    comes with a checkpoint is never run. Weights of the right dtype, by default their
    own, stay mapped to their files. Raises ValueError where the class is unknown and
    where weights are missing, left over or of another shape.
    """
    checkpoint = _in_transformers_layout(checkpoint)
    kind, config = _class_and_config(checkpoint)
    with _quiet():
        in_model(checkpoint, _empty(kind, config))
        model: nn.Module = kind.from_pretrained(
            None,
            config=config,
            state_dict=dict(checkpoint),
            dtype=dtype or _dtype(checkpoint),
        )
    return model.eval()


def empty_model(checkpoint: Checkpoint) -> nn.Module:
    """Build the model of a checkpoint on the meta device, without its weights."""
    with _quiet():
        return _empty(*_class_and_config(_in_transformers_layout(checkpoint)))


def _in_transformers_layout(checkpoint: Checkpoint) -> Checkpoint:
    if checkpoint.layout == "open_clip":
        return to_transformers(checkpoint)
    if checkpoint.layout == "lora":
        raise ValueError(f"{checkpoint.source} is an adapter, not a whole model")
    if checkpoint.config is None:
        raise ValueError(
            f"{checkpoint.source} has no config.json beside it, so that its model "
            "cannot be built: give the whole directory, or a module to run it in"
        )
    return checkpoint


def _class_and_config(checkpoint: Checkpoint) -> tuple[Any, Any]:
    """The class of transformers and the configuration that config.json states."""
    import transformers

    stated = dict(checkpoint.config or {})
    model_type = stated.pop("model_type", None)
    name = next(iter(stated.get("architectures") or ()), None)
    known = model_type in transformers.CONFIG_MAPPING
    if not known or (name and not hasattr(transformers, name)):
        raise ValueError(
            f"{checkpoint.source} is a {name or model_type}, which transformers does "
            "not know; code that comes with a model is not run"
        )
    config = _config(checkpoint.source, model_type, stated)
    kind = (
        getattr(transformers, name)
        if name
        else transformers.MODEL_MAPPING.get(type(config), None)
    )
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise ValueError(f"{checkpoint.source} states {name!r}, which is no model")
    return kind, config


def _config(source: str, model_type: str, stated: dict[str, Any]) -> Any:
    import transformers

    try:
        return transformers.CONFIG_MAPPING[model_type].from_dict(stated)
    except Exception as error:
        # Every configuration checks itself in its own way.
        raise ValueError(
            f"the config.json of {source} is not one of {model_type} "
            f"({' '.join(str(error).split())})"
        ) from error


def _empty(kind: Any, config: Any) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = kind(config)
    return model.eval()


def _dtype(checkpoint: Checkpoint) -> torch.dtype:
    dtypes = [entry.dtype for entry in checkpoint.entries.values()]
    return next((d for d in dtypes if d.is_floating_point), torch.float32)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own bars and notes: what is wrong, we raise."""
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # no types
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # no types
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # no types

"""A checkpoint's own image processor or tokenizer, as functions to tensors."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor

Prepare: TypeAlias = Callable[[Sequence[Any]], dict[str, Tensor]]

# Sequences are cut here where neither tokenizer nor configuration names a length.
_LONGEST = 512


def image_preparation(directory: Path, *, plain: bool = False) -> Prepare:
    """Apply the image processor that a checkpoint directory holds.

    `plain` images are only resized to the processor's height and width and scaled to
    [0, 1], neither cropped nor normalised: what the authors of M-Loss measure on.
    Raises ValueError where there is no processor.
    """
    from transformers import AutoImageProcessor

    try:
        load: Any = AutoImageProcessor.from_pretrained  # transformers has no type here
        processor = load(directory, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(_missing(directory, "preprocessor_config.json")) from error

    changes = _without_crop_and_scale(processor) if plain else {}

    def prepare(images: Sequence[Any]) -> dict[str, Tensor]:
        return dict(processor(images=list(images), return_tensors="pt", **changes))

    return prepare


def _without_crop_and_scale(processor: Any) -> dict[str, Any]:
    """What makes a processor give the whole image, in [0, 1]."""
    final = getattr(processor, "crop_size", None) or processor.size
    side = final.get("shortest_edge")
    size = {"height": final.get("height", side), "width": final.get("width", side)}
    return {"do_center_crop": False, "do_normalize": False, "size": size}


def text_preparation(directory: Path) -> Prepare:
    """Apply the tokenizer that a checkpoint directory holds, padding each batch.

    Longer texts are cut to what the tokenizer or the configuration allows. Raises
    ValueError where there is no tokenizer.
    """
    from transformers import AutoConfig, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(_missing(directory, "tokenizer.json")) from error
    # Of a directory without a vocabulary some classes make a tokenizer without words.
    if set(tokenizer.get_vocab().values()) <= set(tokenizer.all_special_ids):
        raise ValueError(_missing(directory, "tokenizer.json"))
    config = None
    if (directory / "config.json").is_file():
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    limits = (tokenizer.model_max_length, getattr(config, "max_position_embeddings", 0))
    longest = min((n for n in (*limits, _LONGEST) if n), default=_LONGEST)

    def prepare(texts: Sequence[Any]) -> dict[str, Tensor]:
        return dict(
            tokenizer(
                list(texts),
                padding=True,
                truncation=True,
                max_length=longest,
                return_tensors="pt",
            )
        )

    return prepare


def _missing(directory: Path, file: str) -> str:
    return (
        f"{directory} has no usable {file}; copy it there from the checkpoint that "
        "the model was made from"
    )

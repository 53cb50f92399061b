"""Models of the Hugging Face hub, downloaded once into its own cache."""

import re
from pathlib import Path

_ID = re.compile(r"(?:[\w.-]+/)?[\w.-]+")
_BESIDE = ["*.json", "*.txt", "*.model", "*.jinja"]
# In order of preference; the next are fetched where there are none of these.
_WEIGHTS = (
    ("model*.safetensors", "adapter_model.safetensors"),
    ("pytorch_model*.bin", "adapter_model.bin"),
    ("open_clip_*.safetensors",),
    ("open_clip_*.bin",),
)


def is_hub_id(source: str) -> bool:
    """Whether a string has the form `name` or `owner/name`."""
    return _ID.fullmatch(source) is not None and not source.startswith(".")


def hub_directory(model: str, *, revision: str | None = None) -> Path:
    """The local directory of a model of the hub, downloaded where it is not cached.

    Files of pickles are fetched only where there are no safetensors. Raises ValueError
    where the hub has no such model, or cannot be reached and the cache lacks it too.
    """
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise ValueError(
            f"{model} is no local path, and reading the hub needs huggingface_hub: "
            "pip install 'mloss[hub]'"
        ) from error
    try:
        for weights in _WEIGHTS:
            path = hub.snapshot_download(
                model, revision=revision, allow_patterns=[*_BESIDE, *weights]
            )
            if any(any(Path(path).glob(pattern)) for pattern in weights):
                break
    except (hub.errors.HfHubHTTPError, OSError, ValueError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{model} is no local path, and the hub does not give it "
            f"({type(error).__name__}: {first_line})"
        ) from error
    return Path(path)

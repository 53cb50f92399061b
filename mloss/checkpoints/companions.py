"""Files that belong to a model beside its weights: tokenizers, processors and such."""

import json
from pathlib import Path

# Under these names transformers saves what goes with a model.
_NAMES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "*.model"),
    *("bpe.codes", "emoji.json", "normalizer.json", "tekken.json", "vocab.bpe"),
    *("*.spm", "*.tiktoken", "*.jinja", "additional_chat_templates/*.jinja"),
    *("chat_template.json", "generation_config.json"),
    *("preprocessor_config.json", "processor_config.json"),
    *("image_processor_config.json", "video_preprocessor_config.json"),
)
# The same of sentence-transformers, whose parts lie in the folders that this one names.
_MODULES = "modules.json"
_SENTENCES = (_MODULES, "config_sentence_transformers.json", "sentence_*_config.json")
_PART = ("config.json", "model.safetensors", "pytorch_model.bin", *_NAMES)


def companions(directory: Path) -> list[Path]:
    """The files of known names in a directory, and those of the parts it names.

    Others may be anybody's: none of them is taken.
    """
    found = _named(directory, (*_NAMES, *_SENTENCES))
    for part in _parts(directory):
        found += _named(part, (*_PART, *_SENTENCES))
    return sorted(set(found))


def _named(folder: Path, names: tuple[str, ...]) -> list[Path]:
    return [file for name in names for file in folder.glob(name) if file.is_file()]


def _parts(directory: Path) -> list[Path]:
    """The folders inside that hold modules of sentence-transformers."""
    try:
        modules = json.loads((directory / _MODULES).read_text(encoding="utf-8"))
        paths = [str(module["path"]) for module in modules]
    except (OSError, ValueError, TypeError, KeyError):
        return []
    root = directory.resolve()
    parts = [directory / path for path in paths]
    return [part for part in parts if root in part.resolve().parents]

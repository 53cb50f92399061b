"""A small family of models on disk, and texts for it."""

import copy
import json

import pytest
import torch
import transformers
from checkpoint_models import small_bert

WORDS = ("the", "cat", "dog", "sat", "ran", "on", "under", "a", "red", "blue", "mat")


@pytest.fixture(scope="package")
def family(tmp_path_factory):
    """Directories "base", "one", "two", "three" and "texts.jsonl" with 40 texts."""
    folder = tmp_path_factory.mktemp("family")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    tokenizer = transformers.BertTokenizer(str(folder / "vocab.txt"))
    base = small_bert(max_position_embeddings=16)
    generator = torch.Generator().manual_seed(1)
    for name in ("base", "one", "two", "three"):
        base.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        base = copy.deepcopy(base)
        for parameter in base.parameters():
            parameter.data += 0.01 * torch.randn(parameter.shape, generator=generator)
    drawn = torch.randint(len(WORDS), (40, 6), generator=generator).tolist()
    texts = [" ".join(WORDS[i] for i in row) for row in drawn]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (folder / "texts.jsonl").write_text(lines, encoding="utf-8")
    return folder

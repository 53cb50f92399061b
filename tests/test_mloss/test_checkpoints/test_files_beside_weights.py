import json

import pytest
from checkpoint_models import small_bert

from mloss.checkpoints import open_checkpoint, save_checkpoint
from mloss.checkpoints.companions import companions

MINE = (
    *("vocab.txt", "tokenizer.json", "spiece.model", "chat_template.jinja"),
    *(
        "generation_config.json",
        "preprocessor_config.json",
        "sentence_bert_config.json",
    ),
    *("1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"),
)
NOT_MINE = (
    *("comparison.json", "train_texts.txt", "private/emails.txt", "trainer_state.json"),
    *("checkpoint-5/config.json", "checkpoint-5/tokenizer.json", "mloss.json"),
    *("model.safetensors.index.json", "../vocab.txt", "2_Dense/log.txt"),
)


@pytest.fixture
def folder(tmp_path):
    """A directory with files that belong to a model and files that do not."""
    folder = tmp_path / "model"
    for name in (*MINE, *NOT_MINE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    modules = [{"path": path} for path in ("", "1_Pooling", "2_Dense", "..", "absent")]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def test_only_what_belongs_to_the_model(folder):
    found = {str(file.relative_to(folder)) for file in companions(folder)}
    assert found == {*MINE, "modules.json"}


@pytest.mark.parametrize("text", ["", "[1]", "{}", '[{"name": "0"}]'])
def test_modules_that_cannot_be_read_name_nothing(tmp_path, text):
    (tmp_path / "modules.json").write_text(text)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("{}")
    assert companions(tmp_path) == [tmp_path / "modules.json"]


def test_a_merge_gets_those_and_no_others(folder, tmp_path):
    (folder / "model.safetensors.index.json").unlink()
    small_bert().save_pretrained(folder)
    base = open_checkpoint(folder)
    out = save_checkpoint(base, base, tmp_path / "out")
    written = {str(f.relative_to(out)) for f in out.rglob("*") if f.is_file()}
    assert written == {*MINE, "modules.json", "config.json", "model.safetensors"}

import json
from pathlib import Path

import pytest
import torch
from checkpoint_models import (
    output,
    small_bare_image_tower,
    small_bert,
    small_classifier,
    small_clip,
    small_gpt2,
    small_image_tower,
    small_llama,
    small_vit,
)
from safetensors.torch import load_file, save_file
from torch import nn
from torch.func import functional_call

from mloss.checkpoints import empty_model, in_model, load_model, open_checkpoint

MODELS = [
    small_clip,
    small_image_tower,
    small_bare_image_tower,
    small_vit,
    small_bert,
    small_classifier,
    small_llama,
    small_gpt2,
]


@pytest.fixture(params=MODELS)
def saved(request, tmp_path):
    model = request.param()
    model.save_pretrained(tmp_path)
    return model, tmp_path


def rewrite(directory, change):
    state = load_file(directory / "model.safetensors")
    save_file(change(state), directory / "model.safetensors")


def test_a_loaded_model_computes_what_the_saved_one_did(saved):
    model, path = saved
    loaded = load_model(open_checkpoint(path))
    assert type(loaded) is type(model)
    assert not loaded.training
    assert torch.equal(output(loaded), output(model))


def test_a_checkpoint_by_the_models_names_is_its_state(saved):
    model, path = saved
    empty = empty_model(open_checkpoint(path))
    assert all(p.is_meta for p in empty.parameters())
    state = in_model(open_checkpoint(path), empty)
    assert list(state) == list(model.state_dict())
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())


def test_a_source_runs_in_the_model_of_its_base(tmp_path):
    small_llama(seed=0).save_pretrained(tmp_path / "base")
    source = small_llama(seed=1)
    source.save_pretrained(tmp_path / "source")
    run_in = load_model(open_checkpoint(tmp_path / "base"))
    state = in_model(open_checkpoint(tmp_path / "source"), run_in)
    words = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        ours = functional_call(run_in, dict(state), (words,), tie_weights=False)
        assert torch.equal(ours.logits, source(words).logits)


def test_any_module_has_its_own_names(tmp_path):
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    save_file(module.state_dict(), tmp_path / "m.safetensors")
    state = in_model(open_checkpoint(tmp_path / "m.safetensors"), module)
    assert list(state) == list(module.state_dict())


@pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="only Linux lists what is mapped"
)
def test_weights_stay_mapped_to_the_file(tmp_path):
    small_bert().save_pretrained(tmp_path)
    loaded = load_model(open_checkpoint(tmp_path)).state_dict()
    address = loaded["embeddings.word_embeddings.weight"].data_ptr()
    ranges = [
        [int(end, 16) for end in line.split()[0].split("-")]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if str(tmp_path) in line
    ]
    assert any(first <= address < last for first, last in ranges)


def test_a_dtype_can_be_asked_for(tmp_path):
    small_bert().bfloat16().save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert next(load_model(checkpoint).parameters()).dtype == torch.bfloat16
    wide = load_model(checkpoint, dtype=torch.float32)
    assert {p.dtype for p in wide.parameters()} == {torch.float32}


def test_missing_weights_are_said(tmp_path):
    small_bert().save_pretrained(tmp_path)
    rewrite(tmp_path, lambda s: {k: v for k, v in s.items() if "layer.1" not in k})
    with pytest.raises(ValueError, match=r"lacks '.*'.* and 13 more, which a Bert"):
        load_model(open_checkpoint(tmp_path))


def test_left_over_weights_are_said(tmp_path):
    small_bert().save_pretrained(tmp_path)
    rewrite(tmp_path, lambda s: s | {"head.weight": torch.ones(2)})
    with pytest.raises(ValueError, match=r"has 'head\.weight', which a Bert"):
        load_model(open_checkpoint(tmp_path))


def test_other_shapes_are_said(tmp_path):
    small_bert().save_pretrained(tmp_path)
    name = "pooler.dense.bias"
    rewrite(tmp_path, lambda s: s | {name: torch.ones(31)})
    with pytest.raises(ValueError, match=rf"'{name}' has shape \(31,\) in .*\(32,\)"):
        load_model(open_checkpoint(tmp_path))


def test_buffers_that_the_model_makes_may_be_stored(tmp_path):
    small_bert().save_pretrained(tmp_path)
    positions = {"embeddings.position_ids": torch.arange(512)[None]}
    rewrite(tmp_path, lambda s: s | positions)
    load_model(open_checkpoint(tmp_path))


def test_a_checkpoint_of_the_whole_gives_its_main_part(tmp_path):
    whole = small_classifier()
    whole.save_pretrained(tmp_path)
    names = {k for k in whole.state_dict() if k.startswith("bert.")}
    rewrite(tmp_path, lambda s: {k: v for k, v in s.items() if k in names})
    config = json.loads((tmp_path / "config.json").read_text())
    text = json.dumps(config | {"architectures": ["BertModel"]})
    (tmp_path / "config.json").write_text(text)
    loaded = load_model(open_checkpoint(tmp_path))
    assert torch.equal(output(loaded), output(whole.bert))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "secret", "auto_map": {"AutoModel": "evil.Evil"}}, "not run"),
        ({"architectures": ["NoSuchModel"]}, "not know"),
        ({"architectures": ["pipeline"]}, "no model"),
        ({"hidden_size": "wide"}, "is not one of bert"),
    ],
)
def test_models_of_other_code_are_refused(tmp_path, changes, said):
    small_bert().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    (tmp_path / "evil.py").write_text("raise SystemExit('this must not run')")
    with pytest.raises(ValueError, match=said):
        load_model(open_checkpoint(tmp_path))


def test_without_architectures_the_model_of_the_type_is_built(tmp_path):
    model = small_bert()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["architectures"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert type(load_model(open_checkpoint(tmp_path))) is type(model)


def test_a_file_without_config_cannot_be_built(tmp_path):
    save_file({"w": torch.ones(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"has no config\.json beside it"):
        load_model(open_checkpoint(tmp_path / "w.safetensors"))

import json
import warnings

import pytest
import torch
from checkpoint_models import (
    small_bare_image_tower,
    small_bert,
    small_classifier,
    small_gpt2,
    small_llama,
    small_vit,
)
from safetensors.torch import load_file, save_file

from mloss.checkpoints import as_source, check_compatible, open_checkpoint
from mloss.checkpoints.lora import with_adapter

EPS = torch.finfo(torch.float32).eps


def adapted(model, path, **options):
    """A model with a random adapter, saved as peft saves it, and what peft merges."""
    from peft import LoraConfig, get_peft_model

    base = path / "base"
    model.save_pretrained(base)
    with warnings.catch_warnings():
        # peft sets fan_in_fan_out for GPT-2 by itself, and asks an old question.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`")
        tuned = get_peft_model(model, LoraConfig(**options))
    chance = torch.Generator().manual_seed(2)
    for name, parameter in tuned.named_parameters():
        if parameter.requires_grad:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=chance)
            assert "lora" in name or "modules_to_save" in name or "bias" in name
    tuned.save_pretrained(path / "adapter")
    merged = tuned.merge_and_unload()
    merged.save_pretrained(path / "merged")
    return base, path / "adapter", path / "merged"


def assert_merges_as_peft(base, adapter, merged, *, rank):
    """Within the roundings of a sum of rank + 2 terms, each at most the bound."""
    start = open_checkpoint(base)
    ours = as_source(start, open_checkpoint(adapter))
    theirs = open_checkpoint(merged)
    check_compatible(start, [ours])
    changed = 0
    for name, entry in ours.entries.items():
        expected = theirs[name]
        assert ours[name].shape == entry.shape
        assert ours[name].dtype == entry.dtype
        bound = 2 * (rank + 2) * EPS * (2 + expected.abs().max())
        assert (ours[name] - expected).abs().max() <= bound, name
        changed += not torch.equal(ours[name], start[name])
    return changed


@pytest.mark.parametrize(
    ("model", "options", "changed"),
    [
        (small_llama, {"target_modules": ["q_proj", "down_proj"]}, 4),
        (small_llama, {"target_modules": "all-linear", "use_rslora": True}, 14),
        (small_bert, {"target_modules": ["query"], "lora_alpha": 3}, 2),
        (small_vit, {"target_modules": ["q_proj", "fc1"]}, 4),
        (small_gpt2, {"target_modules": ["c_attn", "wte"]}, 3),
        (small_gpt2, {"target_modules": ["c_proj"]}, 4),
        (small_bare_image_tower, {"target_modules": ["patch_embedding", "fc1"]}, 3),
        (
            small_bare_image_tower,
            {
                "target_modules": ["q_proj", "fc1", "fc2"],
                "rank_pattern": {"fc1": 2, "layers.1.mlp.fc2": 6},
                "alpha_pattern": {"fc1": 5, "layers.0.self_attn.q_proj": 1},
            },
            6,
        ),
        (
            small_classifier,
            {"target_modules": ["query"], "modules_to_save": ["classifier"]},
            4,
        ),
        (small_bert, {"target_modules": ["query"], "bias": "all"}, 20),
        (small_bert, {"target_modules": ["query"], "bias": "lora_only"}, 4),
    ],
)
def test_an_adapter_merges_as_peft_merges_it(tmp_path, model, options, changed):
    paths = adapted(model(), tmp_path, r=4, **options)
    assert assert_merges_as_peft(*paths, rank=6) == changed


def test_an_adapter_of_a_classifier_fits_its_encoder(tmp_path):
    _, adapter, merged = adapted(small_classifier(), tmp_path, target_modules=["key"])
    small_classifier().bert.save_pretrained(tmp_path / "encoder")
    ours = as_source(open_checkpoint(tmp_path / "encoder"), open_checkpoint(adapter))
    name = "encoder.layer.1.attention.self.key.weight"
    theirs = open_checkpoint(merged)[f"bert.{name}"]
    assert (ours[name] - theirs).abs().max() <= 20 * EPS * (2 + theirs.abs().max())


def test_adapted_weights_of_a_half_precision_base_are_wide(tmp_path):
    base, adapter, _ = adapted(
        small_llama().bfloat16(), tmp_path, target_modules=["q_proj"]
    )
    start = open_checkpoint(base)
    ours = as_source(start, open_checkpoint(adapter))
    name = "model.layers.0.self_attn.q_proj.weight"
    assert ours.entries[name].dtype == ours[name].dtype == torch.float32
    # An update far below bfloat16's resolution is still there.
    state = load_file(adapter / "adapter_model.safetensors")
    tiny = {k: v * (1e-6 if "lora_B" in k else 1) for k, v in state.items()}
    save_file(tiny, adapter / "adapter_model.safetensors")
    shift = as_source(start, open_checkpoint(adapter))[name] - start[name].float()
    assert 0 < shift.abs().max() < 1e-4
    assert ours.entries["model.norm.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"use_dora": True}, "uses use_dora.*merge_and_unload"),
        ({"lora_bias": True}, "uses lora_bias"),
        ({"peft_type": "IA3"}, "type 'IA3'"),
        ({"init_lora_weights": "pissa"}, "started by 'pissa'.*merge_and_unload"),
    ],
)
def test_other_adapters_are_refused_with_the_way_out(tmp_path, changes, said):
    base, adapter, _ = adapted(small_bert(), tmp_path, target_modules=["query"])
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ValueError, match=said):
        as_source(open_checkpoint(base), open_checkpoint(adapter))


def test_an_adapter_of_another_model_is_refused(tmp_path):
    _, adapter, _ = adapted(small_bert(), tmp_path, target_modules=["query"])
    small_llama().save_pretrained(tmp_path / "llama")
    with pytest.raises(ValueError, match=r"changes 'encoder.* which .*llama has not"):
        with_adapter(open_checkpoint(tmp_path / "llama"), open_checkpoint(adapter))


def test_an_adapter_of_another_size_is_refused(tmp_path):
    _, adapter, _ = adapted(small_bert(), tmp_path, target_modules=["query"])
    small_bert(hidden_size=16).save_pretrained(tmp_path / "small")
    with pytest.raises(ValueError, match=r"has shape \(16, 16\).*\(32, 32\)"):
        with_adapter(open_checkpoint(tmp_path / "small"), open_checkpoint(adapter))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: {k: v for k, v in s.items() if "lora_A" in k}, "one half only"),
        (lambda s: s | {"x.lora_magnitude_vector": torch.ones(1)}, "not W"),
        (
            lambda s: {k: v[:3] if "lora_A" in k else v for k, v in s.items()},
            "has halves of shapes",
        ),
    ],
)
def test_broken_adapters_are_said(tmp_path, change, said):
    base, adapter, _ = adapted(small_bert(), tmp_path, target_modules=["query"])
    state = load_file(adapter / "adapter_model.safetensors")
    changed = {k: v.contiguous() for k, v in change(state).items()}
    save_file(changed, adapter / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=said):
        as_source(open_checkpoint(base), open_checkpoint(adapter))


def test_an_adapter_alone_cannot_be_run(tmp_path):
    from mloss.checkpoints import load_model

    _, adapter, _ = adapted(small_bert(), tmp_path, target_modules=["query"])
    checkpoint = open_checkpoint(adapter)
    assert checkpoint.layout == "lora"
    with pytest.raises(ValueError, match="is an adapter, not a whole model"):
        load_model(checkpoint)

import json

import pytest
import torch
from checkpoint_models import (
    images,
    small_bare_image_tower,
    small_clip,
    small_image_tower,
    small_vit,
    tokens,
)
from open_clip_reference import ImageEncoder, OpenClip, QuickGELU, seeded_open_clip
from safetensors.torch import save_file
from torch import nn

from mloss.checkpoints import (
    as_source,
    check_compatible,
    image_tower,
    load_model,
    open_checkpoint,
    to_open_clip,
    to_transformers,
)

EPS = torch.finfo(torch.float32).eps
HEADS = {"vision_cfg": {"head_width": 8}, "text_cfg": {"heads": 4}}


def assert_same_outputs(ours, theirs):
    """Within the roundings of a few sums of 48 terms, each at most their size."""
    bound = 8 * 48 * EPS * theirs.abs().max()
    assert (ours - theirs).abs().max() <= bound


def saved_clip(directory, **changes):
    model = small_clip(**changes)
    model.save_pretrained(directory)
    return model


def saved_open_clip(path, model, *, quick_gelu=True):
    save_file(model.state_dict(), path)
    config = {"model_cfg": HEADS | {"quick_gelu": quick_gelu}}
    (path.parent / "open_clip_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("activation", [QuickGELU, nn.GELU])
def test_open_clip_becomes_the_same_network_of_transformers(tmp_path, activation):
    theirs = seeded_open_clip(activation=activation)
    saved_open_clip(
        tmp_path / "clip.safetensors", theirs, quick_gelu=activation is QuickGELU
    )
    ours = load_model(open_checkpoint(tmp_path / "clip.safetensors"))
    with torch.no_grad():
        image = ours.get_image_features(pixel_values=images()).pooler_output
        text = ours.get_text_features(input_ids=tokens()).pooler_output
        assert_same_outputs(image, theirs.encode_image(images()))
        assert_same_outputs(text, theirs.encode_text(tokens()))


def test_transformers_becomes_the_same_network_of_open_clip(tmp_path):
    ours = saved_clip(tmp_path)
    theirs = OpenClip(heads=4).eval()
    state = dict(to_open_clip(open_checkpoint(tmp_path)))
    theirs.load_state_dict(state)
    with torch.no_grad():
        image = ours.get_image_features(pixel_values=images()).pooler_output
        text = ours.get_text_features(input_ids=tokens()).pooler_output
        assert_same_outputs(theirs.encode_image(images()), image)
        assert_same_outputs(theirs.encode_text(tokens()), text)


def test_there_and_back_is_exact(tmp_path):
    model = saved_clip(tmp_path)
    start = open_checkpoint(tmp_path)
    back = to_transformers(to_open_clip(start), quick_gelu=True)
    assert set(back) == set(start) == set(model.state_dict())
    assert all(torch.equal(back[name], start[name]) for name in start)
    assert {n: e.shape for n, e in back.entries.items()} == {
        n: e.shape for n, e in start.entries.items()
    }


def test_a_whole_image_encoder_becomes_the_image_tower(tmp_path):
    theirs = ImageEncoder(seeded_open_clip())
    torch.save(theirs, tmp_path / "zeroshot.pt")
    checkpoint = open_checkpoint(tmp_path / "zeroshot.pt")
    assert checkpoint.layout == "open_clip"
    ours = load_model(checkpoint)
    assert type(ours).__name__ == "CLIPVisionModelWithProjection"
    assert ours.config.hidden_act == "quick_gelu"
    assert ours.config.num_attention_heads == 4
    with torch.no_grad():
        assert_same_outputs(ours(images()).image_embeds, theirs(images()))


def test_a_whole_module_shows_the_exact_gelu(tmp_path):
    torch.save(seeded_open_clip(activation=nn.GELU), tmp_path / "laion.pt")
    config = to_transformers(open_checkpoint(tmp_path / "laion.pt")).config
    assert config["vision_config"]["hidden_act"] == "gelu"
    assert config["text_config"]["num_attention_heads"] == 4


def test_a_state_dict_does_not_show_its_activation(tmp_path):
    save_file(seeded_open_clip().state_dict(), tmp_path / "clip.safetensors")
    checkpoint = open_checkpoint(tmp_path / "clip.safetensors")
    with pytest.raises(ValueError, match=r"open_clip_config\.json.*quick_gelu"):
        to_transformers(checkpoint)
    config = to_transformers(checkpoint, quick_gelu=True).config
    assert config["text_config"]["hidden_act"] == "quick_gelu"


@pytest.mark.parametrize(
    ("width", "heads"), [(768, 12), (1024, 16), (1280, 16), (1408, 16), (1664, 16)]
)
def test_heads_of_published_widths_are_known(tmp_path, width, heads):
    state = {
        "visual.class_embedding": torch.zeros(width),
        "visual.conv1.weight": torch.zeros(width, 3, 2, 2),
        "visual.positional_embedding": torch.zeros(5, width),
        "visual.transformer.resblocks.0.ln_1.weight": torch.zeros(width),
        "visual.transformer.resblocks.0.mlp.c_fc.weight": torch.zeros(2, width),
    }
    save_file(state, tmp_path / "tower.safetensors")
    checkpoint = open_checkpoint(tmp_path / "tower.safetensors")
    config = to_transformers(checkpoint, quick_gelu=False).config
    assert config["num_attention_heads"] == heads
    assert config["image_size"] == 4


@pytest.mark.parametrize("tower", [small_image_tower, small_bare_image_tower])
def test_an_image_tower_is_the_base_of_whole_open_clip_sources(tmp_path, tower):
    tower().save_pretrained(tmp_path)
    save_file(seeded_open_clip().state_dict(), tmp_path / "source.safetensors")
    base = open_checkpoint(tmp_path)
    source = as_source(base, open_checkpoint(tmp_path / "source.safetensors"))
    check_compatible(base, [source])
    theirs = seeded_open_clip().visual.transformer.resblocks[1].attn.in_proj_weight
    (keys,) = [n for n in source if n.endswith("layers.1.self_attn.k_proj.weight")]
    assert torch.equal(source[keys], theirs[32:64])


def test_an_open_clip_base_takes_sources_of_transformers(tmp_path):
    saved_clip(tmp_path / "source")
    save_file(seeded_open_clip().state_dict(), tmp_path / "base.safetensors")
    base = open_checkpoint(tmp_path / "base.safetensors")
    source = as_source(base, open_checkpoint(tmp_path / "source"))
    check_compatible(base, [source])
    assert source.layout == "open_clip"


def test_the_image_tower_of_a_clip_model_takes_images_alone(tmp_path):
    whole = saved_clip(tmp_path)
    tower = load_model(image_tower(open_checkpoint(tmp_path)))
    with torch.no_grad():
        expected = whole.get_image_features(pixel_values=images()).pooler_output
        assert torch.equal(tower(images()).image_embeds, expected)


def test_only_a_clip_model_has_an_image_tower(tmp_path):
    small_vit().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="must be a CLIPModel, got model_type 'vit'"):
        image_tower(open_checkpoint(tmp_path))


def test_weights_without_a_place_are_named(tmp_path):
    state = seeded_open_clip().state_dict() | {"logit_bias": torch.zeros(())}
    save_file(state, tmp_path / "siglip.safetensors")
    with pytest.raises(ValueError, match="CLIPModel has no place for 'logit_bias'"):
        to_transformers(open_checkpoint(tmp_path / "siglip.safetensors"))
    small_vit().save_pretrained(tmp_path / "vit")
    with pytest.raises(ValueError, match="open_clip's CLIP has no place for"):
        to_open_clip(open_checkpoint(tmp_path / "vit"))


def test_sizes_in_files_of_openai_are_no_weights(tmp_path):
    sizes = {"vocab_size": torch.tensor(99), "context_length": torch.tensor(16)}
    save_file(seeded_open_clip().state_dict() | sizes, tmp_path / "clip.safetensors")
    start = open_checkpoint(tmp_path / "clip.safetensors")
    assert len(to_transformers(start, quick_gelu=True)) == len(
        small_clip().state_dict()
    )


def test_a_scale_of_one_entry_becomes_a_scalar(tmp_path):
    state = seeded_open_clip().state_dict() | {"logit_scale": torch.tensor([2.0])}
    save_file(state, tmp_path / "clip.safetensors")
    converted = to_transformers(
        open_checkpoint(tmp_path / "clip.safetensors"), quick_gelu=True
    )
    assert (
        converted.entries["logit_scale"].shape == converted["logit_scale"].shape == ()
    )


def test_the_reference_is_sensitive_to_the_order_of_queries_and_keys(tmp_path):
    # The tests above could not tell a wrong layout if this passed.
    theirs = seeded_open_clip()
    saved_open_clip(tmp_path / "clip.safetensors", theirs)
    ours = load_model(open_checkpoint(tmp_path / "clip.safetensors"))
    attention = ours.vision_model.encoder.layers[0].self_attn
    attention.q_proj, attention.v_proj = attention.v_proj, attention.q_proj
    with torch.no_grad():
        image = ours.get_image_features(pixel_values=images()).pooler_output
        assert (image - theirs.encode_image(images())).abs().max() > 1e-2

"""Small models of the architectures that people merge, with seeded random weights."""

import torch
import transformers

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
VISION = _SIZES | {"image_size": 32, "patch_size": 8, "projection_dim": 20}
TEXT = _SIZES | {
    "hidden_size": 24,
    "vocab_size": 99,
    "max_position_embeddings": 16,
    "projection_dim": 20,
    "eos_token_id": 98,
    "bos_token_id": 97,
}


def small_clip(seed=0, **changes):
    config = transformers.CLIPConfig(
        text_config=TEXT | changes, vision_config=VISION | changes, projection_dim=20
    )
    return _seeded(transformers.CLIPModel, config, seed)


def small_image_tower(seed=0):
    config = transformers.CLIPVisionConfig(**VISION)
    return _seeded(transformers.CLIPVisionModelWithProjection, config, seed)


def small_bare_image_tower(seed=0):
    config = transformers.CLIPVisionConfig(**VISION)
    return _seeded(transformers.CLIPVisionModel, config, seed)


def small_vit(seed=0):
    config = transformers.ViTConfig(**_SIZES, image_size=32, patch_size=8)
    return _seeded(transformers.ViTModel, config, seed)


def small_bert(seed=0, **changes):
    config = transformers.BertConfig(**(_SIZES | {"vocab_size": 99} | changes))
    return _seeded(transformers.BertModel, config, seed)


def small_classifier(seed=0):
    config = transformers.BertConfig(**_SIZES, vocab_size=99, num_labels=3)
    return _seeded(transformers.BertForSequenceClassification, config, seed)


def small_llama(seed=0, *, tied=True):
    config = transformers.LlamaConfig(
        **_SIZES, vocab_size=99, num_key_value_heads=2, tie_word_embeddings=tied
    )
    return _seeded(transformers.LlamaForCausalLM, config, seed)


def small_gpt2(seed=0):
    config = transformers.GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=99, n_positions=16
    )
    return _seeded(transformers.GPT2LMHeadModel, config, seed)


def images(count=3, seed=1):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def tokens(count=3, seed=1):
    """Random words that end in the highest token, as open_clip's texts do."""
    words = torch.randint(
        2, 97, (count, 10), generator=torch.Generator().manual_seed(seed)
    )
    words[:, -1] = 98
    return words


def output(model):
    """What a model says of the same random images or words."""
    kind = type(model).__name__
    with torch.no_grad():
        if kind == "CLIPModel":
            out = model(input_ids=tokens(), pixel_values=images())
            return torch.cat([out.image_embeds, out.text_embeds], dim=1)
        data = images() if kind.startswith(("CLIP", "ViT")) else tokens()
        return model(data)[0]


def _seeded(kind, config, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config).eval()
        for parameter in model.parameters():
            # Away from the zeros and ones at which biases and gains are started.
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model

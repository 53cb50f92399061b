"""Small transformers from config, their inputs, and sources near a base."""

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="needs the extra `hub`")

_SMALL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def clip():
    config = transformers.CLIPVisionConfig(**_SMALL, image_size=8, patch_size=4)
    return transformers.CLIPVisionModelWithProjection(config)


def clip_text():
    config = transformers.CLIPTextConfig(
        **_SMALL, vocab_size=40, max_position_embeddings=8, eos_token_id=39
    )
    return transformers.CLIPTextModel(config)


def vit():
    config = transformers.ViTConfig(**_SMALL, image_size=8, patch_size=4)
    return transformers.ViTModel(config, add_pooling_layer=False)


def bert():
    return transformers.BertModel(transformers.BertConfig(**_SMALL, vocab_size=40))


def llama():
    config = transformers.LlamaConfig(**_SMALL, vocab_size=40, num_key_value_heads=1)
    return transformers.LlamaModel(config)


def pixels():
    return {"pixel_values": torch.randn(3, 3, 8, 8, dtype=torch.float64)}


def tokens(lengths=(5, 3, 2)):
    ids = torch.randint(0, 40, (len(lengths), max(lengths)))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return {"input_ids": ids * mask, "attention_mask": mask.long()}


ARCHITECTURES = [
    pytest.param(build, batch, id=build.__name__)
    for build, batch in [(clip, pixels), (vit, pixels), (bert, tokens), (llama, tokens)]
]


def small(build):
    """The same float64 model every time, biases and gains moved from 0 and 1."""
    torch.manual_seed(0)
    model = build().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def near(state, *, q, step):
    """States whose tensors are off by a fraction of their own root mean square."""
    return [
        {
            key: value + step * value.square().mean().sqrt() * torch.randn_like(value)
            for key, value in state.items()
        }
        for _ in range(q)
    ]

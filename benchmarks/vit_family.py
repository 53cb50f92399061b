"""A family of CLIP ViT-B/32 vision towers with random weights, as files, to time with.

A base and sources that stand near it, 87.46 M values or 334 MiB in fp32 each.
"""

from pathlib import Path

import torch

SOURCES = 8
SHIFT = 1e-3

# ViT-B/32 on 224 x 224 pixels.
LAYERS, WIDTH, MLP, HEADS, PATCH, SIZE = 12, 768, 3072, 12, 32, 224


def saved_family(
    folder: Path,
    *,
    sources: int = SOURCES,
    width: int = WIDTH,
    mlp: int = MLP,
    layers: int = LAYERS,
) -> list[Path]:
    """A base and its sources, as directories that `transformers` writes."""
    from transformers import CLIPVisionConfig, CLIPVisionModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        patch_size=PATCH,
        image_size=SIZE,
    )
    model = CLIPVisionModel(config)
    base = [parameter.detach().clone() for parameter in model.parameters()]
    places = [folder / str(index) for index in range(sources + 1)]
    for index, place in enumerate(places):
        if index:
            for parameter, start in zip(model.parameters(), base, strict=True):
                parameter.data = start + SHIFT * torch.randn_like(start)
        model.save_pretrained(place)
    return places


def pictures(images: int, *, batch: int) -> list[dict[str, torch.Tensor]]:
    """Batches of images of random pixels."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(images, 3, SIZE, SIZE, generator=generator)
    return [{"pixel_values": part} for part in pixels.split(batch)]

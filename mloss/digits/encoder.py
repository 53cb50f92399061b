"""The residual GELU network that reads 8x8 digits."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

PIXELS = 64


class ResidualBlock(nn.Module):
    """x + fc2(gelu(fc1(norm(x)))): a transformer's MLP block, without tokens."""

    def __init__(self, *, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.activation = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "image width"]) -> Float[Tensor, "image width"]:
        """Add the block's update to its input."""
        update: Tensor = self.fc2(self.activation(self.fc1(self.norm(x))))
        return x + update


class Encoder(nn.Module):
    """Images in, features out: a linear stem, residual blocks and a final norm."""

    def __init__(self, *, width: int, hidden: int, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Linear(PIXELS, width)
        self.blocks = nn.Sequential(
            *(ResidualBlock(width=width, hidden=hidden) for _ in range(blocks))
        )
        self.norm = nn.LayerNorm(width)

    def forward(
        self, images: Float[Tensor, "image 8 8"]
    ) -> Float[Tensor, "image width"]:
        """Features of each image."""
        features: Tensor = self.norm(self.blocks(self.stem(images.flatten(1))))
        return features


def initialise(encoder: Encoder, *, generator: torch.Generator) -> Encoder:
    """Draw the linear layers afresh, weights ~ N(0, 1/inputs) and biases zero."""
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            deviation = module.in_features**-0.5
            nn.init.normal_(module.weight, std=deviation, generator=generator)
            nn.init.zeros_(module.bias)
    return encoder

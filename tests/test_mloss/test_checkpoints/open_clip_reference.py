"""CLIP with a vision transformer as open_clip lays it out, written from its definition.

Fused attention in torch's own module, projections that multiply from the right, the
class token first, the text read off at its highest token.
"""

from collections import OrderedDict

import torch
from torch import nn


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class ResidualAttentionBlock(nn.Module):
    def __init__(self, width, heads, hidden, activation):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(width, hidden),
                gelu=activation(),
                c_proj=nn.Linear(hidden, width),
            )
        )

    def forward(self, x, mask):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width, layers, heads, hidden, activation):
        super().__init__()
        self.resblocks = nn.ModuleList(
            ResidualAttentionBlock(width, heads, hidden, activation)
            for _ in range(layers)
        )

    def forward(self, x, mask=None):
        x = x.transpose(0, 1)
        for block in self.resblocks:
            x = block(x, mask)
        return x.transpose(0, 1)


class VisionTransformer(nn.Module):
    def __init__(self, width, layers, heads, hidden, activation, *, side, patch, out):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        positions = (side // patch) ** 2 + 1
        self.positional_embedding = nn.Parameter(torch.randn(positions, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, layers, heads, hidden, activation)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.randn(width, out))

    def forward(self, x):
        x = self.conv1(x).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(x), 1, -1)
        x = torch.cat([first, x], dim=1) + self.positional_embedding
        x = self.transformer(self.ln_pre(x))
        return self.ln_post(x[:, 0]) @ self.proj


class OpenClip(nn.Module):
    """The sizes are those of `checkpoint_models.small_clip`."""

    def __init__(self, activation=QuickGELU, *, heads=4):
        super().__init__()
        self.visual = VisionTransformer(
            32, 2, heads, 48, activation, side=32, patch=8, out=20
        )
        self.transformer = Transformer(24, 2, heads, 48, activation)
        self.token_embedding = nn.Embedding(99, 24)
        self.positional_embedding = nn.Parameter(torch.randn(16, 24))
        self.ln_final = nn.LayerNorm(24)
        self.text_projection = nn.Parameter(torch.randn(24, 20))
        self.logit_scale = nn.Parameter(torch.tensor(2.6592))
        mask = torch.full((16, 16), float("-inf")).triu(1)
        self.register_buffer("attn_mask", mask, persistent=False)

    def encode_image(self, images):
        return self.visual(images)

    def encode_text(self, text):
        length = text.shape[1]
        x = self.token_embedding(text) + self.positional_embedding[:length]
        x = self.transformer(x, self.attn_mask[:length, :length])
        last = text.argmax(dim=-1)
        return self.ln_final(x)[torch.arange(len(x)), last] @ self.text_projection


class ImageEncoder(nn.Module):
    """How the task-vectors line of work saves its fine-tuned image towers, whole."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        del self.model.transformer

    def forward(self, images):
        return self.model.encode_image(images)


def seeded_open_clip(seed=0, activation=QuickGELU):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = OpenClip(activation).eval()
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model

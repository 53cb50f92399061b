"""Models of degree two in their parameters: what a pool foretells is the truth."""

import torch
from torch import nn


def two_layers():
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()


def models(q, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            key: torch.randn(value.shape, generator=generator, dtype=torch.float64)
            for key, value in two_layers().state_dict().items()
        }
        for _ in range(q)
    ]


def inputs():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(7, 3, generator=generator, dtype=torch.float64)

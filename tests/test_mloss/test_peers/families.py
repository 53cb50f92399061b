"""A small family of models that both we and a peer can merge, in float64."""

import torch
from torch import nn
from torch.testing import assert_close

EPS, EPS32 = torch.finfo(torch.float64).eps, torch.finfo(torch.float32).eps


def family(q=3):
    """A base and q sources that share a direction, as modules."""
    torch.manual_seed(0)
    layers = nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 10)
    base = nn.Sequential(*layers).double()
    shared = [torch.randn_like(p) for p in base.parameters()]
    return base, [_near(base, shared) for _ in range(q)]


def _near(base, shared):
    source = nn.Sequential(nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 10)).double()
    source.load_state_dict(base.state_dict())
    with torch.no_grad():
        for parameter, common in zip(source.parameters(), shared, strict=True):
            parameter += 0.1 * common + 0.1 * torch.randn_like(parameter)
    return source


def states(models):
    return [model.state_dict() for model in models]


def flat(state):
    """All entries in the order of their names, as FusionBench has them."""
    return torch.cat([state[key].reshape(-1) for key in sorted(state)])


def same(ours, theirs, *, roundings=64, unit=EPS):
    """Equal up to roundings of numbers no larger than 1, and to no others."""
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert_close(value, theirs[key], rtol=0, atol=roundings * unit)

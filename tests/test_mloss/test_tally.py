import math

import torch
from torch.nn import functional

from mloss.pre_activations import Reading
from mloss.readings import Readings
from mloss.sites import Site
from mloss.tally import Draws, Tally


def test_the_density_of_the_base_sees_every_real_token_alike():
    samples, tokens = 200, 4
    tally = Tally(
        Site("layer", functional.relu, "relu"),
        weights=torch.ones(1, dtype=torch.float64),
        eps=1e-4,
    )
    generator = torch.Generator().manual_seed(0)
    keys, points = torch.rand(2, samples, generator=generator, dtype=torch.float64)
    inputs = torch.arange(tokens).expand(samples, tokens)[..., None].double()
    real = torch.tensor([False, True, True, True]).expand(samples, tokens)
    tally.add(
        inputs,
        lambda x: Readings(Reading(x, None), None, [Reading(x, None)]),
        positions=tokens,
        nodes=1,
        tokens=real,
        draws=Draws(keys, points),
    )
    seen = tally.bases.rows.flatten().long().bincount(minlength=tokens).tolist()
    assert seen[0] == 0
    # A count of 200 draws with probability 1/3; three normal deviations pass 4
    # once in 5,000 seeds.
    spread = math.sqrt(samples * (1 / 3) * (2 / 3))
    assert all(abs(count - samples / 3) < 4 * spread for count in seen[1:])

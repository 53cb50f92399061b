"""Scores made by hand, whose every number a test can look up."""

from dataclasses import replace

import torch

from mloss.agreement import PREDICTIONS
from mloss.score import QUANTILES, Score, SiteScore

FIELDS = tuple(PREDICTIONS.values())


def site(name="fc1", *, node=(0.01, 0.04, 0.02), relative=0.01, error=0.02, **fields):
    """One site: errors are `error` of the values, predictions multiples of them."""
    values = torch.tensor(node, dtype=torch.float64)
    layer = values.norm().item()
    factors = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    assert len(factors) == len(QUANTILES)
    whole = SiteScore(
        layer_name=name,
        activation_name="gelu",
        node=values,
        node_stderr=error * values,
        node_quantiles=factors[:, None] * values,
        layer=layer,
        layer_stderr=error * layer,
        node_normalized=10 * values,
        layer_normalized=relative,
        layer_normalized_stderr=error * relative,
        prediction=3 * values,
        prediction_exact=True,
        paper_prediction=2 * values,
        density_prediction=1.5 * values,
        data_free_prediction=None,
        parameters=(f"{name}.weight", f"{name}.bias"),
    )
    return replace(whole, **fields)


def score(*sites, samples=128):
    return Score(sites=sites, samples=samples)


def four_layers(**fields):
    """Layers blocks.0.fc1 to blocks.3.fc1, the third with 8 of 11 parts of the loss."""
    nodes = [(part * 0.01, part * 0.02) for part in (1, 1, 8, 1)]
    return score(
        *(
            site(f"blocks.{place}.fc1", node=node, **fields)
            for place, node in enumerate(nodes)
        )
    )

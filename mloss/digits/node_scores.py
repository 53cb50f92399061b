"""Node M-Loss over the sites of the embedded network (the paper's Figure 3)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mloss.digits.models import DigitsModels
from mloss.score import score


@dataclass(frozen=True)
class NodeMap:
    """Mean node M-Loss and its standard error, both [site, node].

    `layers` names the sites in forward order.
    """

    layers: tuple[str, ...]
    mloss: NDArray[np.float64]
    stderr: NDArray[np.float64]


def node_map(models: DigitsModels, *, learning_rate: float) -> NodeMap:
    """Score the eight experts of one learning rate on 128 unlabelled images.

    On the inputs that reach each site in the experts' average.
    """
    experts = [tuned.state for tuned in models.experts(learning_rate)]
    model, images = models.encoder(), models.unlabelled()
    sites = score(models.base, experts, images, model=model).sites
    return NodeMap(
        layers=tuple(site.layer_name for site in sites),
        mloss=np.stack([site.node.numpy() for site in sites]),
        stderr=np.stack([site.node_stderr.numpy() for site in sites]),
    )

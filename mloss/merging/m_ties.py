"""M-TIES: TIES with keep rates ranked by node M-Loss (paper Algorithm 1)."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.definitions import node_mloss
from mloss.inference import Data, batches, check_fits, evaluating, forward
from mloss.merging.elect import Combine
from mloss.merging.row_wise import row_wise_ties
from mloss.pre_activations import node_parameters, pre_activations
from mloss.recording import recorded_inputs
from mloss.running_mean import RunningMean, token_means
from mloss.sites import find_sites
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights


def m_ties(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    model: nn.Module,
    data: Data,
    weights: Weights = None,
    density: float = 0.2,
    spread: float = 0.1,
    combine: Combine = "weighted_sum",
) -> dict[str, Tensor]:
    """Merge by Algorithm 1: keep more of the nodes whose M-Loss is low.

    `model` is the architecture, `data` batches of unlabelled inputs. At every site in
    forward order the node M-Loss (Eq. 4) is averaged over samples and tokens, with
    the sources' own layer on one shared input: that of the running merge, which is
    what synchronising the merged layers to the sources (lines 24 to 27) comes to.
    Nodes keep between density - spread and density of their parameters by rank; see
    `row_wise_ties` for the rest. Needs one forward pass of the data for each site.

    Raises ValueError as `row_wise_ties` and `find_sites` do, and for data that are
    empty or models that do not fit the architecture.
    """
    start, states = matched(base, sources)
    check_fits(model, start)
    w = merging_weights(weights, q=len(states))
    inputs = list(batches(data))
    sites = {site.layer: site for site in find_sites(model, inputs[0])}

    def mean_mloss(merged: State, layer: str) -> Float[Tensor, " node"]:
        linear, mean = model.get_submodule(layer), RunningMean()
        for batch in inputs:
            with recorded_inputs(model, [layer]) as seen:
                forward(model, merged, batch)
            h = torch.stack(
                [
                    pre_activations(linear, state, name=layer, inputs=seen[layer])
                    for state in states
                ]
            )
            mean.add(token_means(node_mloss(h, sites[layer].activation, weights=w)))
        return mean.mean

    with evaluating(model):
        return row_wise_ties(
            start,
            states,
            layers={
                layer: node_parameters(model.get_submodule(layer), layer)
                for layer in sites
            },
            scores=mean_mloss,
            weights=w,
            density=density,
            spread=spread,
            combine=combine,
        )

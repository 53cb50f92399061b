"""M-TIES: TIES with keep rates ranked by node M-Loss (paper Algorithm 1)."""

from collections.abc import Iterable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.batches import Data, batches, real_tokens
from mloss.definitions import node_mloss
from mloss.inference import check_fits, evaluating, forward
from mloss.merging.elect import Combine
from mloss.merging.registry import merging_method
from mloss.merging.row_wise import row_wise_ties
from mloss.pre_activations import multipliers, node_parameters, pre_activations
from mloss.recording import recorded_inputs
from mloss.running_mean import RunningMean, token_means
from mloss.sites import find_sites
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights


@merging_method(source="Wang et al. 2026, M-Loss, Algorithm 1", needs=("model", "data"))
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
) -> State:
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
        site, mean = sites[layer], RunningMean()
        for batch in inputs:
            with recorded_inputs(model, [layer]) as seen:
                forward(model, merged, batch)
            at = partial(pre_activations, model, site, inputs=seen[layer])
            up = partial(multipliers, model, site, inputs=seen[layer])
            loss = node_mloss(
                torch.stack([at(state) for state in states]),
                site.activation,
                weights=w,
                up=_stacked(map(up, states)),
            )
            mean.add(token_means(loss, real_tokens(batch)))
        return mean.mean

    with evaluating(model):
        return row_wise_ties(
            start,
            states,
            layers={
                layer: node_parameters(model, site) for layer, site in sites.items()
            },
            scores=mean_mloss,
            weights=w,
            density=density,
            spread=spread,
            combine=combine,
        )


def _stacked(values: Iterable[Tensor | None]) -> Tensor | None:
    present = [value for value in values if value is not None]
    return torch.stack(present) if present else None

"""Folding what the activations lose on average into the next layer's bias."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from mloss.batches import Data, batches, part, real_tokens
from mloss.inference import check_fits, evaluating
from mloss.lockstep import in_lockstep
from mloss.merging.from_samples.bias_shift import foldable_sites, shifted_biases
from mloss.merging.from_samples.mean_discrepancy import measured_discrepancy
from mloss.merging.overlaid import Overlaid
from mloss.merging.registry import merging_method
from mloss.merging.underlying import underlying
from mloss.pre_activations import SiteLayers
from mloss.sites import Site
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights


@merging_method(source="docs/merging_by_theory.md, section 1", needs=("model", "data"))
def bias_folding(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    model: nn.Module,
    data: Data,
    weights: Weights = None,
    of: str = "average",
    of_options: Mapping[str, Any] | None = None,
) -> State:
    """Move b2 of the layer behind every activation to b2 - W2 E[D].

    D = f(sum_i w_i h_i) - sum_i w_i f(h_i) is the signed node discrepancy, whose mean
    size is M-Loss (Eq. 4); its mean is a bias that the next linear layer can take out.
    It starts from the merge by the method `of` with `of_options`; W2 and b2 are that
    merge's. E[D] is measured with the sources' layers on the inputs of the running
    merge, in forward order: what is folded in one block is there when the next is
    measured. One pass of the data; sources are read one site at a time, and only
    biases are kept. With one source nothing moves.

    Raises ValueError for models or weights that do not fit, for `of` as `underlying`
    does, and where `foldable_sites` does: a layer without a bias can take nothing out.
    """
    start, states = matched(base, sources)
    check_fits(model, start)
    w = merging_weights(weights, q=len(states))
    inputs = list(batches(data))
    merge = underlying(
        of, start, states, weights=w, options=of_options, model=model, data=inputs
    )
    biases: dict[str, Tensor] = {}
    running = Overlaid(merge, biases)

    def fold(
        site: Site, entered: tuple[str, ...], entering: Mapping[int, Tensor]
    ) -> None:
        layers = [SiteLayers.of(model, site, state) for state in states]
        seen = ((x, real_tokens(inputs[index])) for index, x in entering.items())
        excess = measured_discrepancy(layers, seen, weights=w)
        biases.update(shifted_biases(running, entered, excess))

    with evaluating(model):
        sites = foldable_sites(model, merge, part(inputs[0], slice(1)))
        gates = {site.layer: partial(fold, site, entered) for site, entered in sites}
        in_lockstep(model, running, inputs, before=gates)
    return running

"""Folding what the activations lose into biases, from the weights alone."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from mloss.batches import Batch
from mloss.data_free import assumed_moments
from mloss.inference import check_fits, evaluating
from mloss.merging.from_samples.bias_shift import foldable_sites, shifted_biases
from mloss.merging.from_samples.mean_discrepancy import assumed_discrepancy
from mloss.merging.overlaid import Overlaid
from mloss.merging.registry import merging_method
from mloss.merging.underlying import underlying
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights
from mloss.weights_only import blank


@merging_method(source="docs/merging_by_theory.md, section 1", needs=("model",))
def bias_folding_data_free(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    model: nn.Module,
    weights: Weights = None,
    of: str = "average",
    of_options: Mapping[str, Any] | None = None,
    example: Batch | None = None,
) -> State:
    """Move b2 to b2 - W2 E[D] as `bias_folding` does, with E[D] by theory.

    Layers that a normalisation feeds get inputs that are standardised and without
    correlation (`mloss.data_free`), for which E[D] is `assumed_discrepancy`. Gated
    pairs, and layers whose input no normalisation feeds, stay as they are. The network
    runs once on one `example`, by default a blank one, only to see which layer feeds
    which.

    Raises ValueError as `bias_folding` does, where an example is needed and not
    given, and where no site is left whose input is known.
    """
    start, states = matched(base, sources)
    check_fits(model, start)
    w = merging_weights(weights, q=len(states))
    merge = underlying(of, start, states, weights=w, options=of_options, model=model)
    with evaluating(model):
        shown = blank(model) if example is None else example
        sites = foldable_sites(model, merge, shown)
    biases: dict[str, Tensor] = {}
    for site, entered in sites:
        known = assumed_moments(site, start, states, weights=w)
        if known is not None and site.up is None:
            excess = assumed_discrepancy(site.activation, known)
            biases |= shifted_biases(merge, entered, excess)
    if not biases:
        raise ValueError(
            f"no activation of {type(model).__name__} has a known input: none is "
            "ungated behind a layer that a normalisation feeds"
        )
    return Overlaid(merge, biases)

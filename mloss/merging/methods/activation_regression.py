"""Least squares that bring every layer's output to the ensemble's, on a few samples."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from torch import nn

from mloss.batches import Batch, Data, batches, part
from mloss.inference import check_fits, evaluating
from mloss.merging.from_samples.halves import check_halves
from mloss.merging.from_samples.layer_regression import regressed
from mloss.merging.from_samples.layers_entered import layers_entered
from mloss.merging.from_samples.linear_layers import linear_layers
from mloss.merging.from_samples.ridge import check_ridge
from mloss.merging.registry import merging_method
from mloss.merging.underlying import underlying
from mloss.sites import find_sites
from mloss.states import State, matched
from mloss.streaming import streamed
from mloss.weights import Weights, merging_weights

Layers = Literal["all", "after_activations"]


@merging_method(source="docs/merging_by_theory.md, section 3", needs=("model", "data"))
def activation_regression(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    model: nn.Module,
    data: Data,
    weights: Weights = None,
    of: str = "average",
    of_options: Mapping[str, Any] | None = None,
    layers: Layers = "all",
    ridge: float | None = None,
) -> State:
    """Fit each linear layer to sum_i w_i W_i a_i(x), in forward order.

    min_W sum_x ||W a(x) - sum_i w_i W_i a_i(x)||^2 + ridge s ||W - W_of||^2: a(x)
    enters the layer in the running merge, a_i(x) in source i's own network, s is the
    sum of squares of an input, and W_of is the merge by the method `of` with
    `of_options`. So a layer makes up for what its inputs and all before it lack, as far
    as that can be told from its inputs; the bias is fitted along, without a ridge.
    RegMean (Jin et al. 2023) has a_i(x) on both sides. By default the `ridge` is chosen
    for each layer on half of the samples, held out
    (`mloss.merging.from_samples.ridge`), and a layer that no ridge brings nearer there
    stays as it was.

    `layers` are those of `linear_layers`, or of these the ones that a site's nodes
    enter. All networks run together, in one pass of the data; the changed layers are
    kept in memory, and for one layer at a time a square matrix the width of its input.

    Raises ValueError as `check_ridge` does, for `layers` of another name, data
    without two samples in one batch, models or weights that do not fit, and as
    `underlying`, `companions` and `find_sites` do.
    """
    if ridge is not None:
        check_ridge(ridge)
    start, states = matched(base, sources)
    check_fits(model, start)
    w = merging_weights(weights, q=len(states))
    inputs = list(batches(data))
    check_halves(inputs)
    merge = underlying(
        of, start, states, weights=w, options=of_options, model=model, data=inputs
    )
    with evaluating(model):
        chosen = _chosen(model, merge, part(inputs[0], slice(1)), layers=layers)
        state, _ = regressed(
            model, merge, states, inputs, layers=chosen, weights=w, ridge=ridge
        )
    return state


def _chosen(
    model: nn.Module, merge: State, example: Batch, *, layers: str
) -> list[str]:
    every = linear_layers(model, merge, example)
    if layers == "all":
        return every
    if layers != "after_activations":
        raise ValueError(f"layers must be 'all' or 'after_activations', got {layers!r}")
    with streamed(model, merge):
        entered = layers_entered(model, find_sites(model, example), example)
    behind = {name for names in entered.values() for name in names}
    return [name for name in every if name in behind]

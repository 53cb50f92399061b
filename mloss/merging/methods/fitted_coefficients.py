"""Coefficients of task vectors, part by part, that bring a merge to its ensemble."""

from collections.abc import Iterable

from torch import nn

from mloss.batches import Data, batches, size
from mloss.inference import check_fits, evaluating
from mloss.merging.from_samples.coefficients import Parts, Per, nearest
from mloss.merging.from_samples.halves import check_halves, chosen, halves
from mloss.merging.registry import merging_method
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights


@merging_method(source="docs/merging_by_theory.md, section 2", needs=("model", "data"))
def fitted_coefficients(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    model: nn.Module,
    data: Data,
    weights: Weights = None,
    per: Per = "block",
    rounds: int = 1,
) -> State:
    """Theta + sum_li c_li tau_li, with a c_li for every source i in every part l.

    The parts are the network's blocks or its tensors, as `per` says. The c_li bring
    the output nearest to sum_i w_i f(theta_i; x). They start as the average,
    c_li = w_i. In each of `rounds` the output is taken to be linear in them, which
    leaves out what is of fourth order in the sources' differences, where the gap is
    of second; the step is that of least squares, damped (Levenberg and Marquardt). The
    damping is the one with the smallest measured gap on half of the samples, held out
    of the fit, and where none has a smaller one the search ends: on those samples the
    merge is never further from the ensemble than the average. The
    coefficients are not bounded, and do not sum to 1.

    A round takes two forward passes of half the data for each coefficient. Holds one
    merged model and a batch's outputs for every coefficient. With one source it is
    that source. Raises ValueError for `rounds` below 0, another `per`, data without
    two samples in one batch, models or weights that do not fit, and outputs that are
    not finite.
    """
    if rounds < 0:
        raise ValueError(f"rounds must be >= 0, got {rounds}")
    start, states = matched(base, sources)
    check_fits(model, start)
    w = merging_weights(weights, q=len(states))
    parts = Parts.of(model, start, states, per=per)
    inputs = list(batches(data))
    check_halves(inputs)
    fit, held_out = (
        [
            chosen(batch, samples)
            for batch in inputs
            if len(samples := halves(size(batch))[half])
        ]
        for half in (0, 1)
    )
    with evaluating(model):
        found = nearest(
            model, parts, fit=fit, held_out=held_out, weights=w, rounds=rounds
        )
    return parts.merged(found)

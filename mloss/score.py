"""M-Loss of every activation site of a network, with theory's prediction beside it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.linalg import vector_norm

from mloss.definitions import both_sides, relative
from mloss.inference import Data, architecture, batches, check_fits, evaluating, forward
from mloss.merging.average import average
from mloss.pre_activations import pre_activations
from mloss.predict import Prediction, predict
from mloss.recording import recorded_inputs
from mloss.running_mean import RunningMean, token_means
from mloss.sites import Site, find_sites
from mloss.states import State, listed, matched
from mloss.weights import Weights, merging_weights


@dataclass(frozen=True)
class SiteScore:
    """M-Loss at one site, averaged over the tokens of a sample and then over samples.

    `node` [node] and `layer` are means of Eqs. 4 and 3 with their standard errors
    over samples (infinite for one sample); `node_normalized` and `layer_normalized`
    are means of Eqs. 7 and 6. `prediction` [node] is theory's expectation of `node`,
    exact for its law where `prediction_exact` and an upper bound elsewhere, and
    `paper_prediction` the paper's printed one; None where there is no formula.
    """

    layer_name: str
    activation_name: str
    node: Float[Tensor, " node"]
    node_stderr: Float[Tensor, " node"]
    layer: float
    layer_stderr: float
    node_normalized: Float[Tensor, " node"]
    layer_normalized: float
    prediction: Float[Tensor, " node"] | None
    prediction_exact: bool
    paper_prediction: Float[Tensor, " node"] | None


@dataclass(frozen=True)
class Score:
    """The scores of all sites in forward order, and the number of samples."""

    sites: tuple[SiteScore, ...]
    samples: int


def score(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    data: Data,
    *,
    model: nn.Module | None = None,
    weights: Weights = None,
    inputs: Literal["merge", "base"] = "merge",
    eps: float = 1e-4,
) -> Score:
    """Measure the M-Loss of every site in one pass over batches of unlabelled inputs.

    At a site the base and the q sources each apply their own layer to one shared
    input: what reaches it in the average of the sources ("merge") or in the base.
    State dicts run in the architecture `model`, by default that of the first module
    given. Everything after the pre-activations is float64; memory does not grow with
    the data. See `mloss.predict.predict` for what the prediction assumes.

    Raises ValueError for models, weights or data that do not fit, for a network
    without sites and for another `inputs`.
    """
    if inputs not in ("merge", "base"):
        raise ValueError(f"inputs must be 'merge' or 'base', got {inputs!r}")
    sources = listed(sources)
    run_in = architecture(model, sources, base=base)
    start, states = matched(base, sources)
    check_fits(run_in, start)
    w = merging_weights(weights, q=len(states))
    carrier = average(start, states, weights=w) if inputs == "merge" else start
    tallies: dict[str, _Tally] = {}
    with evaluating(run_in):
        for batch in batches(data):
            if not tallies:
                found = find_sites(run_in, batch)
                tallies = {s.layer: _Tally(s, weights=w, eps=eps) for s in found}
            with recorded_inputs(run_in, list(tallies)) as seen:
                forward(run_in, carrier, batch)
            for name, tally in tallies.items():
                layer = run_in.get_submodule(name)
                h = torch.stack(
                    [
                        pre_activations(layer, state, name=name, inputs=seen[name])
                        for state in (start, *states)
                    ]
                )
                tally.add(h[0], h[1:])
    scores = tuple(tally.result() for tally in tallies.values())
    return Score(sites=scores, samples=next(iter(tallies.values())).node.count)


class _Tally:
    """What a site has shown so far."""

    def __init__(self, site: Site, *, weights: Tensor, eps: float) -> None:
        self.site, self.weights, self.eps = site, weights, eps
        self.node, self.layer = RunningMean(), RunningMean()
        self.node_normalized, self.layer_normalized = RunningMean(), RunningMean()
        self.base_square, self.shifts = RunningMean(), RunningMean()

    def add(
        self,
        base: Float[Tensor, "sample *token node"],
        h: Float[Tensor, "q sample *token node"],
    ) -> None:
        """Count in the pre-activations of the base and the sources on one batch."""
        merged, ensembled = both_sides(h, self.site.activation, weights=self.weights)
        loss = (merged - ensembled).abs()
        norm, size = vector_norm(loss, dim=-1), vector_norm(merged, dim=-1)
        node_ratio = relative(loss, merged.abs(), eps=self.eps)
        layer_ratio = relative(norm, size, eps=self.eps)
        self.node.add(token_means(loss))
        self.layer.add(token_means(norm[..., None]))
        self.node_normalized.add(token_means(node_ratio))
        self.layer_normalized.add(token_means(layer_ratio[..., None]))
        self.base_square.add(token_means(base.square()))
        self.shifts.add(_products(h - base))

    def result(self) -> SiteScore:
        """Give the means, and theory's prediction from the moments."""
        prediction: Prediction = predict(
            self.site.activation,
            self.base_square.mean,
            shifts=self.shifts.mean,
            weights=self.weights,
        )
        return SiteScore(
            layer_name=self.site.layer,
            activation_name=self.site.activation_name,
            node=self.node.mean,
            node_stderr=self.node.stderr,
            layer=self.layer.mean.item(),
            layer_stderr=self.layer.stderr.item(),
            node_normalized=self.node_normalized.mean,
            layer_normalized=self.layer_normalized.mean.item(),
            prediction=prediction.value,
            prediction_exact=prediction.exact,
            paper_prediction=prediction.printed,
        )


def _products(
    shift: Float[Tensor, "q sample *token node"],
) -> Float[Tensor, "sample node q q"]:
    """Mean over a sample's tokens of shift_i shift_j for every node."""
    flat = shift.reshape(*shift.shape[:2], -1, shift.shape[-1])
    return torch.einsum("istn,jstn->snij", flat, flat) / flat.shape[2]

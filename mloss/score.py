"""M-Loss of every activation site of a network, with theory's prediction beside it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.linalg import vector_norm

from mloss.batches import Data, batches, real_tokens
from mloss.definitions import both_sides, relative
from mloss.inference import architecture, check_fits, evaluating, forward
from mloss.merging.average import average
from mloss.pre_activations import multipliers, pre_activations
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
    merged = average(start, states, weights=w)
    carrier = merged if inputs == "merge" else start
    tallies: dict[str, _Tally] = {}
    with evaluating(run_in):
        for batch in batches(data):
            if not tallies:
                found = find_sites(run_in, batch)
                tallies = {s.layer: _Tally(s, weights=w, eps=eps) for s in found}
            with recorded_inputs(run_in, list(tallies)) as seen:
                forward(run_in, carrier, batch)
            for name, tally in tallies.items():
                reading = partial(_Reading.of, run_in, tally.site, inputs=seen[name])
                tally.add(
                    reading(start),
                    merged=reading(merged),
                    sources=[reading(state) for state in states],
                    tokens=real_tokens(batch),
                )
    scores = tuple(tally.result() for tally in tallies.values())
    return Score(sites=scores, samples=next(iter(tallies.values())).node.count)


@dataclass(frozen=True)
class _Reading:
    """Pre-activations of one model at a site, and what its activation multiplies."""

    h: Float[Tensor, "sample *token node"]
    up: Float[Tensor, "sample *token node"] | None

    @classmethod
    def of(
        cls, model: nn.Module, site: Site, state: State, *, inputs: Tensor
    ) -> "_Reading":
        return cls(
            pre_activations(model, site, state, inputs=inputs),
            multipliers(model, site, state, inputs=inputs),
        )


class _Tally:
    """What a site has shown so far."""

    def __init__(self, site: Site, *, weights: Tensor, eps: float) -> None:
        self.site, self.weights, self.eps = site, weights, eps
        self.node, self.layer = RunningMean(), RunningMean()
        self.node_normalized, self.layer_normalized = RunningMean(), RunningMean()
        self.base_square, self.shifts = RunningMean(), RunningMean()

    def add(
        self,
        base: _Reading,
        *,
        merged: _Reading,
        sources: Sequence[_Reading],
        tokens: Bool[Tensor, "sample position"] | None,
    ) -> None:
        """Count in what one batch showed; where it is padded, only real tokens."""
        h = torch.stack([source.h for source in sources])
        ups = [source.up for source in sources if source.up is not None]
        combined, ensembled = both_sides(
            h,
            self.site.activation,
            weights=self.weights,
            up=torch.stack(ups) if ups else None,
            merged=None if self.site.norm is None else merged.h,
        )
        loss = (combined - ensembled).abs()
        norm, size = vector_norm(loss, dim=-1), vector_norm(combined, dim=-1)
        node_ratio = relative(loss, combined.abs(), eps=self.eps)
        layer_ratio = relative(norm, size, eps=self.eps)
        self.node.add(token_means(loss, tokens))
        self.layer.add(token_means(norm[..., None], tokens))
        self.node_normalized.add(token_means(node_ratio, tokens))
        self.layer_normalized.add(token_means(layer_ratio[..., None], tokens))
        self.base_square.add(token_means(base.h.square(), tokens))
        self.shifts.add(_products(h - base.h, tokens))

    def result(self) -> SiteScore:
        """Give the means, and theory's prediction from the moments."""
        prediction = self._prediction()
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

    def _prediction(self) -> Prediction:
        if self.site.up is not None:
            # No formula for a network's many nodes covers the gated pair.
            return Prediction(value=None, exact=False, printed=None)
        return predict(
            self.site.activation,
            self.base_square.mean,
            shifts=self.shifts.mean,
            weights=self.weights,
        )


def _products(
    shift: Float[Tensor, "q sample *token node"],
    tokens: Bool[Tensor, "sample position"] | None,
) -> Float[Tensor, "sample node q q"]:
    """Mean over a sample's tokens of shift_i shift_j for every node."""
    pairs = [
        torch.stack([token_means(first * second, tokens) for second in shift], dim=-1)
        for first in shift
    ]
    return torch.stack(pairs, dim=-2)

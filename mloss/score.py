"""M-Loss of every activation site of a network, with theory's prediction beside it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.batches import Data, batches, real_tokens
from mloss.data_free import Assumed, assumed_moments
from mloss.density import density_prediction, normal_points
from mloss.inference import architecture, called, check_fits, evaluating
from mloss.pre_activations import multipliers, pre_activations
from mloss.predict import Prediction, predict
from mloss.recording import recorded_inputs
from mloss.sites import find_sites
from mloss.states import State, listed, matched
from mloss.streaming import AveragedState, streamed
from mloss.tally import Reading, Readings, Tally
from mloss.weights import Weights, merging_weights

# Levels of the quantiles of a node's M-Loss over samples.
QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class SiteScore:
    """M-Loss at one site, averaged over the tokens of a sample and then over samples.

    `node` [node] and `layer` are means of Eqs. 4 and 3 with their standard errors
    over samples (infinite for one sample), `node_quantiles` [quantile, node] those at
    `QUANTILES` of up to 256 of the samples; `node_normalized` and `layer_normalized`
    are means of Eqs. 7 and 6. `prediction` [node] is theory's expectation of `node`,
    exact for its law where `prediction_exact` and an upper bound elsewhere, and
    `paper_prediction` the paper's printed one. `density_prediction` takes the base's
    pre-activations as they are (`mloss.density`), `data_free_prediction` knows the
    weights alone (`mloss.data_free`). None where there is no formula.
    """

    layer_name: str
    activation_name: str
    node: Float[Tensor, " node"]
    node_stderr: Float[Tensor, " node"]
    node_quantiles: Float[Tensor, "quantile node"]
    layer: float
    layer_stderr: float
    node_normalized: Float[Tensor, " node"]
    layer_normalized: float
    prediction: Float[Tensor, " node"] | None
    prediction_exact: bool
    paper_prediction: Float[Tensor, " node"] | None
    density_prediction: Float[Tensor, " node"] | None
    data_free_prediction: Float[Tensor, " node"] | None


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
    until: float | None = None,
) -> Score:
    """Measure the M-Loss of every site in one pass over batches of unlabelled inputs.

    At a site the base and the q sources each apply their own layer to one shared
    input: what reaches it in the average of the sources ("merge") or in the base.
    State dicts run in the architecture `model`, by default that of the first module
    given, whose parameters may be on the meta device. With `until`, batches are taken
    until the relative standard error of every layer's mean is at most that.

    Everything after the pre-activations is float64. Memory grows neither with the
    data nor with the models: parameters are looked up in the states as they are
    needed, so states that read from disk stay there. See `mloss.predict.predict` for
    what the prediction assumes.

    Raises ValueError for models, weights or data that do not fit, for a network
    without sites and for another `inputs`.
    """
    if inputs not in ("merge", "base"):
        raise ValueError(f"inputs must be 'merge' or 'base', got {inputs!r}")
    if until is not None and not until > 0:
        raise ValueError(f"until must be a positive relative error, got {until}")
    sources = listed(sources)
    run_in = architecture(model, sources, base=base)
    start, states = matched(base, sources)
    check_fits(run_in, start)
    w = merging_weights(weights, q=len(states))
    models = _Models(start, AveragedState(start, states, weights=w), states)
    tallies: dict[str, Tally] = {}
    carrier = models.merged if inputs == "merge" else start
    with evaluating(run_in):
        for batch in batches(data):
            with streamed(run_in, carrier):
                if not tallies:
                    found = find_sites(run_in, batch)
                    tallies = {s.layer: Tally(s, weights=w, eps=eps) for s in found}
                with recorded_inputs(run_in, list(tallies)) as seen:
                    called(run_in, batch)
            for name, tally in tallies.items():
                models.count(
                    tally, run_in, inputs=seen[name], tokens=real_tokens(batch)
                )
            if until is not None and _settled(tallies.values(), until):
                break
    scores = tuple(
        _site_score(tally, assumed_moments(tally.site, start, states, weights=w))
        for tally in tallies.values()
    )
    return Score(sites=scores, samples=next(iter(tallies.values())).samples)


@dataclass(frozen=True)
class _Models:
    """The parameters of the base, the merge and the sources."""

    base: State
    merged: State
    sources: Sequence[State]

    def count(
        self, tally: Tally, model: nn.Module, *, inputs: Tensor, tokens: Tensor | None
    ) -> None:
        """Run the layers of a tally's site in every model and count what they show."""
        site = tally.site
        layer = model.get_submodule(site.layer)
        linear = isinstance(layer, nn.Linear)

        def reading(state: State, x: Tensor) -> Reading:
            h = pre_activations(model, site, state, inputs=x)
            up = multipliers(model, site, state, inputs=x)
            return Reading(_tokens(h), None if up is None else _tokens(up))

        def read(piece: Tensor) -> Readings:
            x = piece if linear else piece.squeeze(1)
            # Averaged parameters of a linear layer are averages of its outputs.
            merged = None if site.norm is None else reading(self.merged, x)
            each = [reading(state, x) for state in self.sources]
            return Readings(reading(self.base, x), merged, each)

        pieces = (
            inputs.flatten(1, -2) if linear and inputs.ndim > 2 else inputs[:, None]
        )
        nodes = len(self.base[f"{site.layer}.weight"])
        tally.add(pieces, read, nodes=nodes, tokens=tokens)


def _tokens(
    h: Float[Tensor, "sample *token node"],
) -> Float[Tensor, "sample token node"]:
    return h.flatten(1, -2) if h.ndim > 2 else h[:, None]


def _settled(tallies: Iterable[Tally], until: float) -> bool:
    """Whether every layer's M-Loss is known to that relative standard error."""
    layers = [tally.means["layer"] for tally in tallies]
    return all(bool(m.stderr <= until * m.mean) for m in layers)


def _site_score(tally: Tally, assumed: Assumed | None) -> SiteScore:
    """Give the means, and what theory predicts from less."""
    site, means = tally.site, tally.means
    prediction = Prediction(value=None, exact=False, printed=None)
    density = data_free = None
    # No formula for a network's many nodes covers the gated pair.
    if site.up is None:
        moments = tally.moments
        prediction = predict(site.activation, moments, weights=tally.weights)
        density = density_prediction(
            site.activation, tally.bases.rows, moments.jensen_variance.cpu()
        )
        if assumed is not None:
            data_free = density_prediction(
                site.activation,
                normal_points(assumed.mean, assumed.variance),
                assumed.jensen_variance,
            )
    levels = torch.tensor(QUANTILES, dtype=torch.float64)
    return SiteScore(
        layer_name=site.layer,
        activation_name=site.activation_name,
        node=means["node"].mean,
        node_stderr=means["node"].stderr,
        node_quantiles=tally.losses.rows.quantile(levels, dim=0),
        layer=means["layer"].mean.item(),
        layer_stderr=means["layer"].stderr.item(),
        node_normalized=means["node_normalized"].mean,
        layer_normalized=means["layer_normalized"].mean.item(),
        prediction=prediction.value,
        prediction_exact=prediction.exact,
        paper_prediction=prediction.printed,
        density_prediction=density,
        data_free_prediction=data_free,
    )

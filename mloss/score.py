"""M-Loss of every activation site of a network, with theory's prediction beside it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.batches import Batch, Data, batches, part, real_tokens, size
from mloss.data_free import predicted_without_data
from mloss.density import density_prediction
from mloss.given_models import Model, in_one_model
from mloss.inference import called, evaluating
from mloss.pre_activations import SiteLayers, by_token
from mloss.predict import Prediction, predict
from mloss.ranks import gathered, own_samples
from mloss.recording import visited
from mloss.running_mean import joined
from mloss.sites import Site, find_sites
from mloss.states import State
from mloss.streaming import AveragedState, placed, streamed
from mloss.tally import Draws, Readings, Tally
from mloss.weights import Weights, merging_weights
from mloss.weights_only import Foretold, foretell

# Levels of the quantiles of a node's M-Loss over samples.
QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class SiteScore:
    """M-Loss at one site, averaged over the tokens of a sample and then over samples.

    `node` [node] and `layer` are means of Eqs. 4 and 3 with their standard errors
    over samples (infinite for one sample), `node_quantiles` [quantile, node] those at
    `QUANTILES` of up to 256 of the samples; `node_normalized` and `layer_normalized`
    are means of Eqs. 7 and 6, the latter with its error. `prediction` [node] is
    theory's expectation of `node`, exact for its law where `prediction_exact` and an
    upper bound elsewhere, and `paper_prediction` the paper's printed one.
    `density_prediction` takes the base's pre-activations as they are
    (`mloss.density`), `data_free_prediction` knows the weights alone
    (`mloss.data_free`). None where there is no formula.
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
    layer_normalized_stderr: float
    prediction: Float[Tensor, " node"] | None
    prediction_exact: bool
    paper_prediction: Float[Tensor, " node"] | None
    density_prediction: Float[Tensor, " node"] | None
    data_free_prediction: Float[Tensor, " node"] | None


@dataclass(frozen=True)
class Score:
    """The scores of all sites in forward order, and the number of samples.

    Without data there are none, and `foretold` has what the weights alone say.
    """

    sites: tuple[SiteScore, ...]
    samples: int
    foretold: tuple[Foretold, ...] = ()


def score(
    base: Model,
    sources: Iterable[Model],
    data: Data | None = None,
    *,
    model: nn.Module | None = None,
    weights: Weights = None,
    inputs: Literal["merge", "base"] = "merge",
    eps: float = 1e-4,
    until: float | None = None,
    at_least: int = 1,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Score:
    """Measure the M-Loss of every site in one pass over batches of unlabelled inputs.

    Without data it is foretold from the weights (`mloss.weights_only.foretell`).
    At a site the base and the q sources each apply their own layer to one shared
    input: what reaches it in the average of the sources ("merge") or in the base.
    Models are modules, state dicts, or paths and hub ids. They run in the architecture
    `model`, by default that of the first module given or of a checkpoint's
    configuration; its own parameters may be on the meta device. With `until`, batches
    are taken until the relative standard error of every layer's mean is at most that,
    and `at_least` so many samples.

    Everything after the pre-activations is float64. What comes before is computed in
    `dtype` on `device`, by default those of the base. Half precision rounds the
    pre-activations as much as models close to each other differ: its scores are rough.
    Torch's own settings say whether float32 products may be TF32.

    Memory grows neither with the number of batches nor with that of the models, and
    states that read from disk stay there. A site is scored when its layer runs, with
    that layer of all models at hand and nothing else of the sources. Every batch reads
    every parameter, so large batches of models on disk are better than small ones.
    Processes of a `torch.distributed` group share the samples of each batch, of which
    all must get the same, and return the same score. Results are on the CPU. See
    `mloss.predict.predict` for what the prediction assumes.

    Raises ValueError for models, weights or data that do not fit, for a network
    without sites, for another `inputs` and for a dtype of integers.
    """
    if inputs not in ("merge", "base"):
        raise ValueError(f"inputs must be 'merge' or 'base', got {inputs!r}")
    if until is not None and not until > 0:
        raise ValueError(f"until must be a positive relative error, got {until}")
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"dtype must be of floating-point numbers, got {dtype}")
    run_in, start, states = in_one_model(base, sources, model=model)
    w = merging_weights(weights, q=len(states))
    if data is None:
        foretold = foretell(start, states, model=run_in, weights=w)
        return Score(sites=(), samples=0, foretold=foretold)
    models = _Models.of(run_in, start, states, weights=w, device=device, dtype=dtype)
    carrier = models.merged if inputs == "merge" else models.base
    with evaluating(run_in):
        tallies = _tallied(
            models,
            data,
            carrier=carrier,
            weights=w,
            eps=eps,
            until=until,
            at_least=at_least,
        )
    scores = tuple(
        _site_score(tally, predicted_without_data(tally.site, start, states, weights=w))
        for tally in tallies
    )
    return Score(sites=scores, samples=tallies[0].samples)


def _tallied(
    models: "_Models",
    data: Data,
    *,
    carrier: State,
    weights: Tensor,
    eps: float,
    until: float | None,
    at_least: int,
) -> list[Tally]:
    """Tallies of all sites in forward order, over all samples of all processes."""
    generator = torch.Generator().manual_seed(0)
    tallies: list[Tally] = []
    seen = 0
    for batch in batches(data):
        if not tallies:
            sites = models.sites(part(batch, slice(1)), carrier=carrier)
            tallies = [Tally(site, weights=weights, eps=eps) for site in sites]
        # Of every sample, so that a process draws what one alone would.
        drawn = torch.rand(size(batch), 2, generator=generator, dtype=torch.float64)
        own = own_samples(size(batch))
        if len(drawn[own]):
            draws = Draws(*drawn[own].unbind(dim=1))
            models.run(part(batch, own), tallies, draws=draws, carrier=carrier)
        seen += size(batch)
        if until is not None and seen >= at_least and _settled(tallies, until):
            break
    for tally in tallies:
        tally.gather()
    return tallies


@dataclass(frozen=True)
class _Models:
    """The architecture, and the parameters of the base, the merge and the sources."""

    model: nn.Module
    base: State
    merged: State
    sources: Sequence[State]
    device: torch.device | None
    dtype: torch.dtype | None

    @classmethod
    def of(
        cls,
        model: nn.Module,
        base: State,
        sources: Sequence[State],
        *,
        weights: Tensor,
        device: str | torch.device | None,
        dtype: torch.dtype | None,
    ) -> "_Models":
        """Put everything on the device asked for, as it is looked up."""
        where = None if device is None else torch.device(device)
        start, *each = (placed(state, device=where) for state in (base, *sources))
        averaged = AveragedState(start, each, weights=weights)
        return cls(model, start, averaged, each, where, dtype)

    def sites(self, batch: Batch, *, carrier: State) -> tuple[Site, ...]:
        """Find the activation sites in the carrier."""
        with streamed(self.model, carrier, device=self.device, dtype=self.dtype):
            return find_sites(self.model, batch)

    def run(
        self,
        batch: Batch,
        tallies: Iterable[Tally],
        *,
        draws: Draws,
        carrier: State,
    ) -> None:
        """Run the carrier, and at each site, when its turn comes, all the others."""
        count = partial(self._count, tokens=real_tokens(batch), draws=draws)
        visitors = {tally.site.layer: partial(count, tally) for tally in tallies}
        with (
            streamed(self.model, carrier, device=self.device, dtype=self.dtype),
            visited(self.model, visitors),
        ):
            called(self.model, batch)

    def _count(
        self,
        tally: Tally,
        inputs: Tensor,
        output: Tensor,
        *,
        tokens: Tensor | None,
        draws: Draws,
    ) -> None:
        """Run the layers of a tally's site in every model and count what they show."""
        layer = self.model.get_submodule(tally.site.layer)
        linear = isinstance(layer, nn.Linear)
        # Averaged parameters of a linear layer are averages of its outputs.
        states = [self.base, *self.sources]
        if tally.site.norm is not None:
            states.append(self.merged)
        base, *others = (
            SiteLayers.of(self.model, tally.site, placed(state, dtype=self.dtype))
            for state in states
        )
        sources = others[: len(self.sources)]
        merged = others[len(self.sources) :]

        def read(piece: Tensor) -> Readings:
            x = piece if linear else piece.squeeze(1)
            each = [source(x) for source in sources]
            return Readings(base(x), merged[0](x) if merged else None, each)

        _, positions, nodes = by_token(layer, output).shape
        tally.add(
            inputs.flatten(1, -2) if linear and inputs.ndim > 2 else inputs[:, None],
            read,
            positions=positions,
            nodes=nodes,
            tokens=tokens,
            draws=draws,
        )


def _settled(tallies: Iterable[Tally], until: float) -> bool:
    """Whether every layer's M-Loss is known to that relative standard error."""
    layers = [joined(gathered(tally.means["layer"])) for tally in tallies]
    return all(bool(m.stderr <= until * m.mean) for m in layers)


def _site_score(tally: Tally, data_free: Tensor | None) -> SiteScore:
    """Give the means, and what theory predicts from less."""
    site, means = tally.site, tally.means
    prediction = Prediction(value=None, exact=False, printed=None)
    density = None
    # No formula for a network's many nodes covers the gated pair.
    if site.up is None:
        moments = tally.moments
        prediction = predict(site.activation, moments, weights=tally.weights)
        density = density_prediction(
            site.activation, tally.bases.rows, moments.jensen_variance
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
        layer_normalized_stderr=means["layer_normalized"].stderr.item(),
        prediction=prediction.value,
        prediction_exact=prediction.exact,
        paper_prediction=prediction.printed,
        density_prediction=density,
        data_free_prediction=data_free,
    )

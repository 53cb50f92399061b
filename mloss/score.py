"""M-Loss of every activation site of a network, with theory's prediction beside it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.batches import Data
from mloss.data_free import predicted_without_data
from mloss.density import density_prediction
from mloss.given_models import Model, in_one_model
from mloss.inference import evaluating
from mloss.pre_activations import node_parameters
from mloss.predict import Prediction, predict
from mloss.scoring_pass import Passing
from mloss.tally import Tally
from mloss.tf32 import convolutions_as_products
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
    (`mloss.data_free`). None where there is no formula. `parameters` are the state
    keys of what belongs to the nodes, one row for each (paper Definition 3.2).
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
    parameters: tuple[str, ...]


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
    together: int = 128,
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
    `torch.set_float32_matmul_precision` says whether float32 may be TF32.

    Batches are taken until they hold `together` samples, with `until` no more than
    `at_least`, and go through the network in lockstep (`mloss.lockstep`): parameters
    are read module by module, for all of them at once, and a site is scored just
    before its layer runs, with that layer of all models at hand and nothing else of
    the sources. Memory is that of a module in all models and of the hidden states of
    these samples; it grows neither with the number of batches nor with the depth of
    the models, and states that read from disk stay there.
    Processes of a `torch.distributed` group share the samples of each batch, of which
    all must get the same, and return the same score. Results are on the CPU. See
    `mloss.predict.predict` for what the prediction assumes.

    Raises ValueError for models, weights or data that do not fit, for a network
    without sites, for another `inputs`, for `together` below 1 and for a dtype of
    integers; TypeError for what is no dtype.
    """
    if inputs not in ("merge", "base"):
        raise ValueError(f"inputs must be 'merge' or 'base', got {inputs!r}")
    if until is not None and not until > 0:
        raise ValueError(f"until must be a positive relative error, got {until}")
    if together < 1:
        raise ValueError(f"together must be at least 1, got {together}")
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype must be a torch.dtype, got {dtype!r}")
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"dtype must be of floating-point numbers, got {dtype}")
    run_in, start, states = in_one_model(base, sources, model=model)
    w = merging_weights(weights, q=len(states))
    if data is None:
        foretold = foretell(start, states, model=run_in, weights=w)
        return Score(sites=(), samples=0, foretold=foretold)
    passing = Passing.of(
        run_in,
        start,
        states,
        weights=w,
        carried_by_merge=inputs == "merge",
        device=device,
        dtype=dtype,
    )
    with evaluating(run_in), convolutions_as_products():
        tallies = passing.tallied(
            data,
            weights=w,
            eps=eps,
            together=together,
            until=until,
            at_least=at_least,
        )
    scores = tuple(
        _site_score(
            tally,
            data_free=predicted_without_data(tally.site, start, states, weights=w),
            parameters=tuple(node_parameters(run_in, tally.site)),
        )
        for tally in tallies
    )
    return Score(sites=scores, samples=tallies[0].samples)


def _site_score(
    tally: Tally, *, data_free: Tensor | None, parameters: tuple[str, ...]
) -> SiteScore:
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
        parameters=parameters,
    )

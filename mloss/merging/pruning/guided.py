"""Keep rates of nodes from their M-Loss, layer after layer on the running merge."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from mloss.activations import resolve
from mloss.batches import Batch, Data, batches, part, real_tokens, size
from mloss.inference import check_fits, evaluating
from mloss.lockstep import in_lockstep
from mloss.merging.pruning.keep_rates import Ranks, check_rates, keep_rates
from mloss.merging.pruning.node_scores import Mean, NodeScores
from mloss.merging.pruning.row_wise import NodeWise, RowStep, check_untied
from mloss.merging.pruning.some_layers import chosen_sites
from mloss.pre_activations import SiteLayers, node_parameters
from mloss.side_by_side import side_by_side
from mloss.sites import Site, find_sites
from mloss.states import State
from mloss.streaming import streamed

# Samples that show which layers have the highest M-Loss.
_FIRST = 8


@dataclass(frozen=True)
class Reading:
    """How Algorithm 1 is read where its text and its authors' program differ.

    mean: what is averaged over tokens and samples to rank nodes, the "absolute"
        discrepancy (Definition 3.4) or its "square".
    ranks: those of tied scores, "average" or by "position".
    bias: whether a node's bias shares the budget of its row (Definition 3.2) or is
        merged as in `rest`.
    inputs: of a layer, those that reach it in the running "merge", which is what
        synchronising the merged layers to the sources comes to (lines 24 to 27), or
        in the "base".
    activation: the name of what the network is taken to apply, or "own": what it does.
    layers: which sites have budgets by node (`mloss.merging.pruning.some_layers`).
    tokens: how many of each sample's tokens a linear layer is shown; None is all, as a
        convolution always is.
    """

    mean: Mean = "absolute"
    ranks: Ranks = "average"
    bias: bool = True
    inputs: Literal["merge", "base"] = "merge"
    activation: str = "own"
    layers: str = "all"
    tokens: int | None = None

    def __post_init__(self) -> None:
        if self.mean not in ("absolute", "square"):
            raise ValueError(f"mean must be 'absolute' or 'square', got {self.mean!r}")
        if self.inputs not in ("merge", "base"):
            raise ValueError(f"inputs must be 'merge' or 'base', got {self.inputs!r}")
        if self.tokens is not None and self.tokens < 1:
            raise ValueError(f"tokens must be at least 1, got {self.tokens}")


def guided(
    start: State,
    states: Sequence[State],
    *,
    model: nn.Module,
    data: Data,
    weights: Float[Tensor, " q"],
    density: float,
    spread: float,
    rest: State,
    step: RowStep,
    reading: Reading,
    scale: float = 1.0,
) -> NodeWise:
    """Merge by node where the network has activations, and as in `rest` elsewhere.

    In forward order each site's nodes are scored by their mean M-Loss on what reaches
    the site, and `keep_rates` makes keep rates of the ranks; `step` then prunes and
    combines the rows. All samples run together, one forward pass in all
    (`mloss.lockstep`), in which a layer is scored just before it runs.

    Raises ValueError as `keep_rates` and `find_sites` do, for parameters of a site
    that are tied to others, and for data that are empty or do not fit.
    """
    check_rates(density, spread=spread)
    check_fits(model, start)
    scoring = _Scoring(model, states, list(batches(data)), weights, reading)
    with evaluating(model):
        sites = scoring.sites(start)
        layers = {site.layer: scoring.keys(site) for site in sites}
        check_untied(start, {key for keys in layers.values() for key in keys})
        rates: dict[str, Tensor] = {}
        merged = NodeWise(
            start,
            states,
            rest=rest,
            layers=layers,
            rates=rates,
            step=step,
            scale=scale,
        )

        def rank(layer: str, scores: Tensor) -> None:
            merged.mean_scores[layer] = scores.mean().item()
            rates[layer] = keep_rates(
                scores, density=density, spread=spread, ranks=reading.ranks
            )

        scoring.run(merged if reading.inputs == "merge" else start, sites, then=rank)
    return merged


@dataclass(frozen=True)
class _Scoring:
    """The network and samples, of which sites are scored in forward order."""

    model: nn.Module
    states: Sequence[State]
    inputs: list[Batch]
    weights: Float[Tensor, " q"]
    reading: Reading

    def sites(self, base: State) -> list[Site]:
        """Find the sites in the base and choose among them."""
        with streamed(self.model, base):
            found = find_sites(self.model, part(self.inputs[0], slice(1)))

        def mean_scores() -> list[float]:
            means: list[float] = []
            few = list(_first(self.inputs, _FIRST))
            scoring = _Scoring(self.model, self.states, few, self.weights, self.reading)
            scoring.run(base, found, then=lambda _, s: means.append(s.mean().item()))
            return means

        return chosen_sites(found, self.reading.layers, mean_scores=mean_scores)

    def keys(self, site: Site) -> tuple[str, ...]:
        """The parameters of a site's nodes that share a budget."""
        keys = node_parameters(self.model, site)
        if self.reading.bias:
            return tuple(keys)
        return tuple(key for key in keys if not key.endswith(".bias"))

    def run(
        self,
        carrier: State,
        sites: Sequence[Site],
        *,
        then: Callable[[str, Float[Tensor, " node"]], None],
    ) -> None:
        """Run the samples and give each site's scores before its layer runs."""
        masks = [real_tokens(batch) for batch in self.inputs]

        def gate(site: Site, entering: Mapping[int, Tensor]) -> None:
            named = self.reading.activation
            scores = NodeScores(
                site.activation if named == "own" else resolve(named),
                self.weights,
                mean=self.reading.mean,
                tokens=self.reading.tokens,
            )
            layers = [SiteLayers.of(self.model, site, each) for each in self.states]
            then(site.layer, scores(layers, entering, masks, each=each))

        gates = {site.layer: partial(gate, site) for site in sites}
        with side_by_side() as each:
            in_lockstep(
                self.model, carrier, self.inputs, before=gates, to_the_end=False
            )


def _first(inputs: Iterable[Batch], count: int) -> Iterator[Batch]:
    """Batches of the first so many samples."""
    for batch in inputs:
        yield part(batch, slice(count))
        count -= size(batch)
        if count <= 0:
            return

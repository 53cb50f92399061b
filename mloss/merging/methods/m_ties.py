"""M-TIES: TIES with keep rates ranked by node M-Loss (paper Algorithm 1)."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal

from torch import nn

from mloss.batches import Data
from mloss.merging.pruning.elect import Combine
from mloss.merging.pruning.global_trim import Trimming
from mloss.merging.pruning.guided import Reading, guided
from mloss.merging.pruning.keep_rates import Ranks
from mloss.merging.pruning.node_scores import Mean
from mloss.merging.pruning.row_wise import trimmed_step
from mloss.merging.registry import METHODS, merging_method
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights

# What the paper's text says, and what its authors' program does.
READINGS: Mapping[str, Reading] = MappingProxyType(
    {
        "paper": Reading(),
        "reference": Reading(
            mean="square",
            ranks="position",
            bias=False,
            inputs="base",
            activation="gelu_tanh",
        ),
    }
)
_COMBINES: Mapping[str, Combine] = MappingProxyType(
    {"paper": "weighted_sum", "reference": "disjoint_mean"}
)


@merging_method(source="Wang et al. 2026, M-Loss, Algorithm 1", needs=("model", "data"))
def m_ties(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    model: nn.Module,
    data: Data,
    weights: Weights = None,
    density: float = 0.2,
    spread: float = 0.1,
    scale: float = 1.0,
    preset: Literal["paper", "reference"] = "paper",
    combine: Combine | None = None,
    mean: Mean | None = None,
    ranks: Ranks | None = None,
    bias: bool | None = None,
    inputs: Literal["merge", "base"] | None = None,
    activation: str | None = None,
    trimming: Trimming = "tensor",
    layers: str = "all",
    tokens: int | None = None,
) -> State:
    """Merge by Algorithm 1: keep more of the nodes whose M-Loss is low.

    `model` is the architecture, `data` batches of unlabelled inputs. Site after site,
    in forward order, the node M-Loss (Eq. 4) is averaged over tokens and samples, with
    the sources' own layer on one shared input: that of the running merge, which is
    what synchronising the merged layers to the sources (lines 24 to 27) comes to.
    Nodes keep between density - spread and density of their parameters, row and bias
    together, by rank; signs are elected and the step is scale * sum_i w_i
    ElectPruned(T_i). Everything else is merged by `ties`, with one budget for each
    tensor or, where `trimming` is "model", one for the whole task vector.

    Where the authors' program differs from their text, `preset` "reference" does as it
    does; each difference has an option too (`mloss.merging.pruning.guided.Reading`, and
    `combine`, there the "disjoint_mean"), None being what the preset says. The
    program's images are not normalised, and new for each layer: that is for `data`. It
    knows no weights: leave them equal.
    Few-Layer M-TIES (section 6.6) is `layers` "few", "auto" or positions. With
    `tokens`, each sample shows so many random tokens to each linear layer: faster, with
    ranks that are a little less certain.

    Raises ValueError for rates outside 0 <= spread <= density <= 1, another word for an
    option, data that are empty, a network without sites, and models or weights that do
    not fit.
    """
    if preset not in READINGS:
        raise ValueError(f"preset must be 'paper' or 'reference', got {preset!r}")
    given = {
        "mean": mean,
        "ranks": ranks,
        "bias": bias,
        "inputs": inputs,
        "activation": activation,
        "tokens": tokens,
    }
    chosen: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    start, states = matched(base, sources)
    w = merging_weights(weights, q=len(states))
    how = combine or _COMBINES[preset]
    rest = METHODS["ties"].lazily(
        start,
        states,
        weights=w,
        density=density,
        scale=scale,
        combine=how,
        trimming=trimming,
    )
    return guided(
        start,
        states,
        model=model,
        data=data,
        weights=w,
        density=density,
        spread=spread,
        rest=rest,
        step=trimmed_step(w, combine=how),
        reading=replace(READINGS[preset], layers=layers, **chosen),
        scale=scale,
    )

"""Merging with a budget for each node of chosen layers, as Algorithm 1 does."""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from threading import Lock

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.merging.pruning.elect import Combine, combine_elected
from mloss.merging.pruning.keep_rates import check_rates, keep_rates
from mloss.merging.pruning.trim import trim_rows
from mloss.merging.registry import METHODS
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights

# Values of a model at a time: a few hundred rows of a common transformer.
_AT_ONCE = 2**20

# The running merge and a layer's name in; one score for each node of it out.
Scores = Callable[[State, str], Float[Tensor, " node"]]
# Some of a layer's task vectors row by row, under a name that no others have, and the
# rows' keep rates in; their step out.
RowStep = Callable[
    [str, Float[Tensor, "q node entry"], Float[Tensor, " node"]],
    Float[Tensor, "node entry"],
]


class NodeWise(Mapping[str, Tensor]):
    """A merge of which some layers are merged node by node, once their rates are known.

    `layers` names them, with the keys of their parameters, first axis the node: a
    node's rows of all of them are pruned together. `rates` may be filled in as the
    merge goes on; a layer that is not in it yet is the base's. `mean_scores` is for who
    scores nodes to note what their mean was, layer by layer. Everything else is looked
    up in `rest`. Entries are computed as they are looked up; of the last layer
    they are all kept.
    """

    def __init__(
        self,
        base: State,
        sources: Sequence[State],
        *,
        rest: State,
        layers: Mapping[str, Sequence[str]],
        rates: Mapping[str, Float[Tensor, " node"]],
        step: RowStep,
        scale: float = 1.0,
    ) -> None:
        self._base, self._sources, self._rest = base, sources, rest
        self.layers, self.rates = layers, rates
        self.mean_scores: dict[str, float] = {}
        self._step, self._scale = step, scale
        self._layer_of = {key: name for name, keys in layers.items() for key in keys}
        self._last: tuple[str, dict[str, Tensor]] = ("", {})
        # Of a layer's entries, asked for by several threads, one computes them all.
        self._lock = Lock()

    def __getitem__(self, key: str) -> Tensor:
        layer = self._layer_of.get(key)
        if layer is None:
            return self._rest[key]
        if layer not in self.rates:
            return self._base[key]
        with self._lock:
            if self._last[0] != layer:
                self._last = layer, self._merged(layer)
            return self._last[1][key]

    def _merged(self, layer: str) -> dict[str, Tensor]:
        keys, rates = self.layers[layer], self.rates[layer]
        origins = [self._base[key] for key in keys]
        tuned = [[source[key] for key in keys] for source in self._sources]
        merged = [torch.empty_like(origin) for origin in origins]
        nodes = max(1, _AT_ONCE // sum(origin[0].numel() for origin in origins))
        for first in range(0, len(rates), nodes):
            some = slice(first, first + nodes)
            start = _rows(origins, some)
            vectors = torch.stack([_rows(each, some) - start for each in tuned])
            name = f"{layer} from {first}" if first else layer
            step = self._step(name, vectors, rates[some])
            moved = start.add_(step, alpha=self._scale)
            parts = torch.split(moved, [o[0].numel() for o in origins], dim=-1)
            for whole, part in zip(merged, parts, strict=True):
                whole[some] = part.reshape(whole[some].shape).to(whole.dtype)
        return dict(zip(keys, merged, strict=True))

    def __iter__(self) -> Iterator[str]:
        return iter(self._base)

    def __len__(self) -> int:
        return len(self._base)


def trimmed_step(weights: Float[Tensor, " q"], *, combine: Combine) -> RowStep:
    """Trim each row to its rate, elect signs and combine: the row-wise step of TIES."""

    def step(
        _: str, rows: Float[Tensor, "q node entry"], rates: Float[Tensor, " node"]
    ) -> Float[Tensor, "node entry"]:
        trimmed = [trim_rows(each, rates) for each in rows]
        return combine_elected(trimmed, weights, combine=combine)

    return step


def row_wise_ties(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    layers: Mapping[str, Sequence[str]],
    scores: Scores,
    weights: Weights = None,
    density: float = 0.2,
    spread: float = 0.1,
    combine: Combine = "weighted_sum",
) -> dict[str, Tensor]:
    """Algorithm 1 of the paper for any scores of the nodes.

    `layers` names, in forward order, the layers that are trimmed node by node, each
    with the keys of its parameters (first axis: the node). Everything else is merged
    by `ties` with one budget for each tensor. Layer by layer, `scores(running merge,
    layer)` ranks the nodes; `keep_rates` turns ranks into the fraction of its
    parameters, weight row and bias together, that each node keeps; a sign is elected
    and the sources combined. With "weighted_sum" the step is line 22's
    sum_i w_i ElectPruned(T_i). M-TIES scores by M-Loss (`m_ties`); random or reversed
    scores are its controls.

    Raises ValueError as `ties` and `keep_rates` do, and where a parameter of these
    layers is tied to another: one tensor would get two merged values.
    """
    check_rates(density, spread=spread)
    start, states = matched(base, sources)
    w = merging_weights(weights, q=len(states))
    check_untied(start, {key for keys in layers.values() for key in keys})
    rates: dict[str, Tensor] = {}
    merged = NodeWise(
        start,
        states,
        rest=METHODS["ties"].lazily(
            start, states, weights=w, density=density, combine=combine
        ),
        layers=layers,
        rates=rates,
        step=trimmed_step(w, combine=combine),
    )
    for layer in layers:
        rates[layer] = keep_rates(scores(merged, layer), density=density, spread=spread)
    return dict(merged)


def check_untied(state: State, keys: Container[str]) -> None:
    """Raise ValueError where one of these keys shares its tensor with another key.

    Only a dict holds tensors that can be shared; what is read from disk is read anew.
    """
    if not isinstance(state, dict):
        return
    first_at: dict[tuple[int, torch.Size], str] = {}
    for key, value in state.items():
        first = first_at.setdefault((value.data_ptr(), value.shape), key)
        if first != key and (first in keys or key in keys):
            raise ValueError(
                f"{first!r} and {key!r} are tied to one tensor: "
                "it cannot be merged node by node"
            )


def _rows(tensors: Sequence[Tensor], nodes: slice) -> Float[Tensor, "node entry"]:
    """Some nodes' linearly correlated parameters side by side, in float64."""
    rows = [tensor[nodes].double() for tensor in tensors]
    return torch.cat([row.reshape(len(row), -1) for row in rows], dim=-1)

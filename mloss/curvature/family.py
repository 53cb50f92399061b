"""Source models around their mean, ready to be differentiated."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.batches import Batch
from mloss.curvature.scatter import scatter
from mloss.curvature.second_derivative import Method, second_derivative
from mloss.inference import architecture, check_fits
from mloss.merging.methods.average import average
from mloss.outputs import check_finite, flat_output
from mloss.states import State, listed, matched
from mloss.weights import Weights, merging_weights, weighted_sum


@dataclass(frozen=True)
class Family:
    """Models that match, the architecture they run in, their weights, mean and spread.

    `spread` is that of `scatter`.
    """

    model: nn.Module
    states: Sequence[State]
    weights: Float[Tensor, " q"]
    mean: State
    spread: Sequence[tuple[float, State]]

    @classmethod
    def of(
        cls,
        model: nn.Module,
        sources: Iterable[nn.Module | State],
        *,
        weights: Weights,
    ) -> "Family":
        """Check what a caller gave. ValueError for fewer than two or unlike models."""
        sources = listed(sources)
        if len(sources) < 2:
            raise ValueError(
                f"sources must hold at least two models, got {len(sources)}"
            )
        run_in = architecture(model, sources)
        first, states = matched(sources[0], sources)
        check_fits(run_in, first)
        w = merging_weights(weights, q=len(states))
        mean, spread = average(first, states, weights=w), tuple(scatter(states, w))
        return cls(run_in, states, w, mean, spread)

    def second_order(
        self,
        batch: Batch,
        *,
        first: Collection[str] | None = None,
        second: Collection[str] | None = None,
        method: Method,
    ) -> Float[Tensor, "sample entry"]:
        """-1/2 sum_i w_i D^2 f(mean)[a_i, b_i], in float64.

        a_i and b_i are source i's deviation from the mean in the entries `first` and
        `second` of the state, in all where None.
        """
        total = torch.zeros((), dtype=torch.float64)
        for c, direction in self.spread:
            a = _within(direction, first)
            b = None if first == second else _within(direction, second)
            total = total - c / 2 * second_derivative(
                self.model, self.mean, batch, first=a, second=b, method=method
            )
        return total

    def measured(self, batch: Batch) -> Float[Tensor, "sample entry"]:
        """f(mean) - sum_i w_i f(theta_i), in float64."""
        merged, *outputs = (
            flat_output(self.model, state, batch).double()
            for state in (self.mean, *self.states)
        )
        gap = merged - weighted_sum(self.weights, outputs)
        check_finite(gap)
        return gap


def _within(direction: State, keys: Collection[str] | None) -> State:
    if keys is None:
        return direction
    return {key: direction[key] for key in keys if key in direction}

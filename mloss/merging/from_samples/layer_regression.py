"""Least squares that move a merge's linear layers onto the ensemble's outputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import add

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mloss.batches import Batch, size
from mloss.lockstep import in_lockstep
from mloss.merging.from_samples.companions import Entering, companions
from mloss.merging.from_samples.halves import chosen, halves
from mloss.merging.from_samples.regression import bias_key, weight_key
from mloss.merging.from_samples.ridge import Sums, fitted
from mloss.merging.from_samples.task_data import entering_rows
from mloss.merging.overlaid import Overlaid
from mloss.merging.task_vectors import moved
from mloss.states import State
from mloss.weights import weighted_sum


@dataclass(frozen=True)
class LayerFit:
    """What least squares left of a layer's distance to the ensemble's outputs.

    `fitted` and `held_out` are fractions of its square: on the rows it was fitted to,
    and on half of them for a fit to the other half. `ridge` is the one chosen; None
    where no fit helped the rows held out, and the layer stays as it was.
    """

    ridge: float | None
    fitted: float
    held_out: float


def regressed(
    model: nn.Module,
    merge: State,
    sources: Sequence[State],
    inputs: Sequence[Batch],
    *,
    layers: Sequence[str],
    weights: Float[Tensor, " q"],
    ridge: float | None,
) -> tuple[State, dict[str, LayerFit]]:
    """Change the weights and biases of linear layers, named in forward order.

    A layer gets min_W sum_x ||W a(x) - sum_i w_i W_i a_i(x)||^2 + a ridge towards the
    merge's own W, as `activation_regression` says: a(x) enters it in the running merge,
    where all earlier layers have changed, and a_i(x) in source i's own network. Rows
    are the real tokens of all samples; a layer whose input has no axis of samples stays
    as it is. Also returns what was won at each of the others.
    """
    changed: dict[str, Tensor] = {}
    running, fits = Overlaid(merge, changed), dict[str, LayerFit]()
    with companions(model, sources, inputs, layers=layers) as beside:

        def regress(name: str, entering: Entering) -> None:
            merged, *each = (_Linear.of(state, name) for state in (running, *sources))
            task = _Task(name, merged, entering, each, beside(name), weights)
            if any(len(x) != size(inputs[index]) for index, x in entering.items()):
                return
            one, other = (task.sums(inputs, half=half) for half in (0, 1))
            fit = fitted(one, other, ridge=ridge, free=merged.constants)
            left = (one + other).left(fit.coefficients)
            fits[name] = LayerFit(fit.ridge, left, fit.held_out)
            changed.update(merged.moved(name, fit.coefficients))

        gates = {name: partial(regress, name) for name in layers}
        in_lockstep(model, running, inputs, before=gates)
    return running, fits


@dataclass(frozen=True)
class _Linear:
    """Parameters of an nn.Linear in one model."""

    weight: Float[Tensor, "node feature"]
    bias: Float[Tensor, " node"] | None

    @classmethod
    def of(cls, state: State, name: str) -> "_Linear":
        return cls(state[weight_key(name)], state.get(bias_key(name)))

    @property
    def constants(self) -> int:
        """How many inputs are constant: the bias's one, or none."""
        return 0 if self.bias is None else 1

    def __call__(self, x: Float[Tensor, "row feature"]) -> Float[Tensor, "row node"]:
        """W x + b, half precision in float32: what is fitted are differences."""
        wide = torch.promote_types(x.dtype, torch.float32)
        bias = None if self.bias is None else self.bias.to(wide)
        return functional.linear(x.to(wide), self.weight.to(wide), bias)

    def moved(
        self, name: str, coefficients: Float[Tensor, "feature node"]
    ) -> dict[str, Tensor]:
        """State entries after a step; the bias's row is the last."""
        step = coefficients.T
        own = self.weight.shape[1]
        entries = {weight_key(name): moved(self.weight, step[:, :own])}
        if self.bias is not None:
            entries[bias_key(name)] = moved(self.bias, step[:, own])
        return entries


@dataclass(frozen=True)
class _Task:
    """One layer in the merge and in the sources, and what enters it there."""

    name: str
    merged: _Linear
    entering: Entering
    sources: Sequence[_Linear]
    beside: Sequence[Entering]
    weights: Float[Tensor, " q"]

    def sums(self, inputs: Sequence[Batch], *, half: int) -> Sums:
        """Sums for the regression of what is lacking, on one half of each batch."""
        return reduce(
            add, (self._of(index, inputs[index], half) for index in self.entering)
        )

    def _of(self, index: int, batch: Batch, half: int) -> Sums:
        samples = halves(size(batch))[half]
        seen = chosen(batch, samples)

        def rows(entering: Entering) -> Float[Tensor, "row feature"]:
            return entering_rows(entering[index][samples], seen, layer=self.name)

        own = rows(self.entering)
        each = map(rows, self.beside)
        aim = weighted_sum(
            self.weights, (f(x) for f, x in zip(self.sources, each, strict=True))
        )
        features = functional.pad(own, (0, self.merged.constants), value=1.0)
        return Sums.of(features, aim - self.merged(own))

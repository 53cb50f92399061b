"""Importance sampling of nodes with a bend of the activation between their models.

The loss of a node is 0 unless f bends between its lowest and its highest model; it is
at most their distance times the change of f' between them. So a bend is drawn from a
density that follows |f''| p, and the node is put anywhere such that its models lie
around it. Since the loss then grows as the square of the models' distance, they are
moved apart by a factor first. With several nodes one of them, picked at random, is put
so. A sample comes from the law itself with probability `PLAIN`: no weight exceeds
1 / PLAIN, and a bend that was missed costs variance, never bias.

A sample counts only where its own source is the denser of the two (the maximum
heuristic of Veach and Guibas 1995). Were all counted, the few plain samples that meet a
bend at large k / sigma would decide the error of a million Sobol points, and the sets,
most of them without any, would agree on too little.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np

from simulate.activations import Array, evaluate
from simulate.backends import NUMPY, Backend, Block
from simulate.bending import Bending, bending
from simulate.discrepancy import Discrepancy
from simulate.inputs import Empirical, normal_density
from simulate.laws import Law
from simulate.placements import MovedError, MovedInput, MovedRank, Placement, State

PLAIN = 2.0**-5  # a power of 2, so that Sobol points divide exactly
REACH = 8.0  # standard deviations of an error
TINY = 1e-300
RANKS = 1024  # panels of the ranks of a sample, at most


@dataclass(frozen=True)
class Proposal:
    """The density of what `placement` moves, for an aligned law."""

    law: Law
    placement: Placement
    bending: Bending
    ops: Backend

    @property
    def stretch(self) -> float:
        """Factor on the models' distances, of the mean square that they then have."""
        apart = self.law.rank - 1
        return sqrt((apart + 2) / apart) if apart else 1.0

    def moved(self, t: Block, state: State) -> tuple[State, Block]:
        """The state moved by uniforms t [2, n], with its ratios of densities [d, n].

        A node's ratio is that of the density, had this node been picked, to the law's.
        """
        ops = self.ops
        where = (t[0] - PLAIN) / (1 - PLAIN) * self.law.nodes
        node = ops.xp.floor(where)
        picked = node == ops.asarray(np.arange(self.law.nodes))[:, None]
        z = state.z
        z[1:] += self.law.over_nodes(picked * (self.stretch - 1) * z[1:], ops)
        low, high = self.placement.outermost(state)
        bend = self.bending.quantile(where - node, ops)
        state = self.placement.moved(state, bend - low - t[1] * (high - low), picked)
        return state, self._ratio(state, low, high)

    def weight(self, t: Block, ratio: Block) -> Block:
        """Weights [n] of samples moved by t [2, n], from their ratios [d, n]."""
        density = (1 - PLAIN) * ratio.mean(axis=0)
        counts = (t[0] >= PLAIN) == (density >= PLAIN)
        return counts / self.ops.xp.clip(density, PLAIN, None)

    def _ratio(self, state: State, low: Block, high: Block) -> Block:
        ops = self.ops
        y = self.placement.position(state)
        share = self.bending.below(y + high, ops) - self.bending.below(y + low, ops)
        density = self.placement.density(state)
        # Outside the law's support the weight is 0, so the ratio is infinite.
        ratio = share * self._stretched(state.z) / ops.xp.clip(high - low, TINY, None)
        ratio = ratio / ops.xp.where(density > 0, density, 1.0)
        return ops.xp.where(density > 0, ratio, np.inf)

    def _stretched(self, z: Block) -> Block:
        """Density of the stretched normals relative to the standard ones."""
        square = (z[1:] * z[1:]).sum(axis=0)
        rate = (1 - self.stretch**-2) / 2
        return self.ops.xp.exp(rate * square) / self.stretch ** len(z[1:])


def proposal_for(law: Law, loss: Discrepancy) -> Proposal | None:
    """A proposal for an aligned law, found by evaluating f; None where nothing bends.

    Whichever of the input and the merged error varies more gives way.
    """
    spread, ops = law.merged_spread, loss.ops
    if law.difference_spread == 0 or spread == law.inputs.spread == 0:
        return None
    placement: Placement
    if law.inputs.spread <= spread:
        placement = MovedError(law, ops)
        x = law.inputs.quantile((np.arange(64) + 0.5) / 64, NUMPY)
        found = bends(law, loss, lambda y: normal_density((y - x) / spread, NUMPY))
    elif isinstance(law.inputs, Empirical):
        width = 1 / min(RANKS, len(law.inputs.sample))
        placement = MovedRank(law, width, ops)
        found = ranks_that_bend(law, bends(law, loss, np.ones_like), width=width)
    else:
        inputs, error = law.inputs, np.linspace(-REACH, REACH, 129)
        chance = normal_density(error, NUMPY)
        placement = MovedInput(law, inputs, ops)
        found = bends(
            law, loss, lambda y: chance * inputs.density(y - spread * error, NUMPY)
        )
    return None if found is None else Proposal(law, placement, found, ops)


def bends(
    law: Law, loss: Discrepancy, likely: Callable[[Array], Array]
) -> Bending | None:
    """Bends of f where a density says that nodes are merged; None if it has none.

    likely(y [p, 1]) averages over its last axis to the density, up to a factor.
    """
    ops = loss.ops

    def f(y: Array) -> Array:
        return np.asarray(ops.numbers(evaluate(loss.f, ops.asarray(y), ops.asarray)))

    def importance(y: Array) -> Array:
        size = 1.0 if loss.eps is None else np.abs(f(y)) + loss.eps
        return np.asarray(likely(y[:, None]).mean(axis=1) / size)

    low, high = law.inputs.quantile(np.array([0.0, 1.0]), NUMPY)
    reach = REACH * law.error_spread
    return bending(
        f, importance, low=low - reach, high=high + reach, scale=law.difference_spread
    )


def ranks_that_bend(law: Law, found: Bending | None, *, width: float) -> Bending | None:
    """The ranks of a sample's inputs, by the bends within two errors of them."""
    if found is None:
        return None
    reach = 2 * law.error_spread
    edges = np.linspace(0.0, 1.0, round(1 / width) + 1)
    within = width * (np.arange(4)[:, None] + 0.5) / 4
    x = law.inputs.quantile(edges[:-1] + within, NUMPY)
    share = found.below(x + reach, NUMPY) - found.below(x - reach, NUMPY)
    return Bending.of(edges, share.mean(axis=0))

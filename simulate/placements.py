"""What gives way when a node is placed so that a bend lies between its models.

A node's merged pre-activation is y = x + s z, with x the base input and s z the merged
error. One of the two is drawn from its law; the other is y less the one drawn. With
several nodes the neighbours of the one that was moved follow, as the correlation
between nodes says.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from simulate.backends import Backend, Block
from simulate.inputs import SmoothLaw, normal_density, normal_quantile
from simulate.laws import Law


class State(NamedTuple):
    """Ranks u [d, n] of the inputs x [d, n], and normals z [rank, d, n]."""

    u: Block
    x: Block
    z: Block


class Placement(Protocol):
    """A variable of a node that is placed, with its own law's density."""

    def position(self, state: State) -> Block:
        """The variable at every node [d, n]."""

    def outermost(self, state: State) -> tuple[Block, Block]:
        """Of what lies at a node, the lowest and highest less its position."""

    def density(self, state: State) -> Block:
        """The position's density under the law, given the variables that stay."""

    def moved(self, state: State, y: Block, picked: Block) -> State:
        """The state with the picked nodes [d, n] at the positions y [d, n]."""


@dataclass(frozen=True)
class MovedInput:
    """The merged error stays and x follows: for inputs wider than the errors."""

    law: Law
    inputs: SmoothLaw
    ops: Backend

    def position(self, state: State) -> Block:
        """Merged pre-activations."""
        return state.x + self.law.merged_spread * state.z[0]

    def outermost(self, state: State) -> tuple[Block, Block]:
        """The models farthest below and above their merge."""
        apart = self.law.apart(state.z, self.ops)
        return self.ops.xp.amin(apart, 0), self.ops.xp.amax(apart, 0)

    def density(self, state: State) -> Block:
        """Density of the inputs; 0 outside their support."""
        return self.inputs.density(state.x, self.ops)

    def moved(self, state: State, y: Block, picked: Block) -> State:
        """Put x at y less the merged error."""
        placed = y - self.law.merged_spread * state.z[0]
        x = state.x
        if self.law.mixing is not None:
            new = self.inputs.cdf(placed, self.ops)
            u = _moved_ranks(self.law, state.u, new, picked, self.ops)
            x = self.inputs.quantile(u, self.ops)
        return state._replace(x=self.ops.xp.where(picked, placed, x))


@dataclass(frozen=True)
class MovedError:
    """x stays and the merged error follows: for errors wider than the inputs."""

    law: Law
    ops: Backend

    def position(self, state: State) -> Block:
        """Merged pre-activations."""
        return state.x + self.law.merged_spread * state.z[0]

    def outermost(self, state: State) -> tuple[Block, Block]:
        """As far as the models get from a merge whose error may still move them."""
        z = self.ops.xp.concatenate([0 * state.z[:1], state.z[1:]])
        apart = self.law.apart(z, self.ops)
        margin = self.law.apart_with_merge
        return self.ops.xp.amin(apart, 0) - margin, self.ops.xp.amax(apart, 0) + margin

    def density(self, state: State) -> Block:
        """Density of the merged errors."""
        return normal_density(state.z[0], self.ops) / self.law.merged_spread

    def moved(self, state: State, y: Block, picked: Block) -> State:
        """Put the merged error at y less x."""
        z = state.z
        step = picked * ((y - state.x) / self.law.merged_spread - z[0])
        z[0] += self.law.over_nodes(step, self.ops)
        return state


@dataclass(frozen=True)
class MovedRank:
    """The rank of x is placed, to within `width`: for inputs without a density."""

    law: Law
    width: float
    ops: Backend

    def position(self, state: State) -> Block:
        """Ranks of the inputs."""
        return state.u

    def outermost(self, state: State) -> tuple[Block, Block]:
        """Half the width to either side."""
        half = self.ops.xp.full_like(state.u, self.width / 2)
        return -half, half

    def density(self, state: State) -> Block:
        """Density of the ranks."""
        return 1.0 * ((state.u >= 0) & (state.u < 1))

    def moved(self, state: State, y: Block, picked: Block) -> State:
        """Put the rank at y."""
        u = self.ops.xp.where(picked, y, state.u)
        if self.law.mixing is not None:
            others = _moved_ranks(self.law, state.u, y, picked, self.ops)
            u = self.ops.xp.where(picked, y, others)
        return State(u, self.law.inputs.quantile(u, self.ops), state.z)


def _moved_ranks(law: Law, u: Block, new: Block, picked: Block, ops: Backend) -> Block:
    """Ranks once the picked node has a new one and the others have followed it."""
    scores = normal_quantile(u, ops)
    step = picked * (normal_quantile(new, ops) - scores)
    return ops.special.ndtr(scores + law.over_nodes(step, ops))

"""The ways of drawing: each turns a span of work and a seed into moments."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.random import SeedSequence
from scipy.stats import qmc

from simulate.activations import evaluate
from simulate.backends import Backend, Block
from simulate.discrepancy import Discrepancy
from simulate.inputs import normal_quantile
from simulate.laws import Law, positive_integer
from simulate.moments import Moments, Strata
from simulate.placements import State
from simulate.proposals import Proposal, proposal_for

CHUNK = 2**20  # pre-activations from one seed
RANDOMISATIONS = 16  # scrambled Sobol sets at least, and less than twice as many
LEAST_POINTS = 16  # in each of them
BITS = 32  # of a Sobol coordinate

T = TypeVar("T", Moments, Strata)
Task: TypeAlias = Callable[[SeedSequence], Moments | Strata]


@dataclass(frozen=True)
class Simulation:
    """What is simulated, and on what."""

    law: Law
    loss: Discrepancy
    ops: Backend
    proposal: Proposal | None = None

    def blocks(self, count: int) -> Iterator[int]:
        """Split a count of samples into blocks that fit the cache.

        Blocks are powers of 2 but for the last, as Sobol points want to be drawn.
        """
        size = len(self.law.weights) * self.law.nodes
        block = 1 << (max(1, self.ops.block // size).bit_length() - 1)
        while count > 0:
            yield min(block, count)
            count -= block

    def aligned(self) -> "Simulation":
        """The same with a law whose first normal alone moves the merge."""
        return replace(self, law=self.law.aligned())

    def weighted(self) -> "Simulation":
        """Aligned, with a proposal if f bends where pre-activations may lie."""
        sim = self.aligned()
        return replace(sim, proposal=proposal_for(sim.law, self.loss))

    def sample(self, v: Block, z: Block) -> Block:
        """Loss [n] of independent uniforms v [base, n], normals z [rank, base, n]."""
        x = self.law.inputs.quantile(self.law.scores(v, self.ops), self.ops)
        h = self.law.pre_activations(x, self.law.mixed(z, self.ops), self.ops)
        return self.loss(h)

    def weighted_sample(self, t: Block, v: Block, z: Block) -> Block:
        """Weighted loss [n]; uniforms t [2, n] say where to put which node."""
        if self.proposal is None:
            return self.sample(v, z)
        weight, h, flat = self._placed(self.proposal, t, v, z)
        return weight * self.loss(h, flat=flat)

    def output_size(self) -> float:
        """The size of f at the ends of its inputs, that of a relative loss being 1."""
        if self.loss.eps is not None:
            return 1.0
        ends = self.law.inputs.quantile(self.ops.asarray([0.0, 1.0]), self.ops)
        return float(abs(evaluate(self.loss.f, ends, self.ops.asarray)).max())

    def rounding(self, seed: SeedSequence) -> float:
        """How much of the expected loss rounding may be, where f bends."""
        assert self.proposal is not None
        n, base = max(1, self.ops.block // self.law.nodes), self.law.base
        stream = self.ops.stream(seed)
        weight, h, flat = self._placed(
            self.proposal,
            stream.random((2, n)),
            stream.random((base, n)),
            stream.standard_normal((self.law.rank, base, n)),
        )
        return float((weight * self.loss.unresolved(h, flat)).sum()) / n

    def _placed(
        self, proposal: Proposal, t: Block, v: Block, z: Block
    ) -> tuple[Block, Block, Block]:
        """Weights [n], pre-activations [q, d, n] and where f is a line [d, n]."""
        u = self.law.scores(v, self.ops)
        x = self.law.inputs.quantile(u, self.ops)
        state, ratio = proposal.moved(t, State(u, x, self.law.mixed(z, self.ops)))
        h = self.law.pre_activations(state.x, state.z, self.ops)
        return proposal.weight(t, ratio), h, ratio == 0


class Span(NamedTuple):
    """A run of units of work among `total` of them."""

    start: int
    size: int
    total: int


Chunk: TypeAlias = Callable[[Simulation, Span, SeedSequence], Moments | Strata]


def independent(sim: Simulation, span: Span, seed: SeedSequence) -> Moments:
    """Independent samples from the law."""
    stream, base, rank = sim.ops.stream(seed), sim.law.base, sim.law.rank
    return _sum(
        Moments.of(
            sim.sample(
                stream.random((base, size)), stream.standard_normal((rank, base, size))
            )
        )
        for size in sim.blocks(span.size)
    )


def antithetic(sim: Simulation, span: Span, seed: SeedSequence) -> Moments:
    """Pairs in which every variable of an aligned law is half its ranks away.

    A large distance between the models is paired with a small one. Reversing signs
    instead would pair equal losses: a bend at 0 sees no difference.
    """
    stream, base, rank = sim.ops.stream(seed), sim.law.base, sim.law.rank

    def pair(size: int) -> Block:
        v = stream.random((base, size))
        z = stream.standard_normal((rank, base, size))
        opposite = normal_quantile((sim.ops.special.ndtr(z) + 0.5) % 1.0, sim.ops)
        return (sim.sample(v, z) + sim.sample((v + 0.5) % 1.0, opposite)) / 2

    return _sum(Moments.of(pair(size)) for size in sim.blocks(span.size))


def stratified(sim: Simulation, span: Span, seed: SeedSequence) -> Strata:
    """Two samples from each of equally likely strata of the (first) input."""
    stream, base, rank = sim.ops.stream(seed), sim.law.base, sim.law.rank

    def sample(start: int, size: int) -> Block:
        v = stream.random((base, size))
        v[0] = (v[0] + sim.ops.asarray(np.arange(start, start + size))) / span.total
        return sim.sample(v, stream.standard_normal((rank, base, size)))

    start, parts = span.start, []
    for size in sim.blocks(span.size):
        parts.append(Strata.of(sample(start, size), sample(start, size)))
        start += size
    return _sum(parts)


def weighted(sim: Simulation, span: Span, seed: SeedSequence) -> Moments:
    """Independent samples from the proposal, with their weights."""
    stream, base, rank = sim.ops.stream(seed), sim.law.base, sim.law.rank
    return _sum(
        Moments.of(
            sim.weighted_sample(
                stream.random((2, size)),
                stream.random((base, size)),
                stream.standard_normal((rank, base, size)),
            )
        )
        for size in sim.blocks(span.size)
    )


def randomised(sim: Simulation, points: int, seed: SeedSequence) -> Moments:
    """The mean over one scrambled Sobol set of `points` points, a power of two.

    The coordinates that matter most come first: where the merge lands, then what
    moves the models apart, then the merged error and the inputs.
    """
    base, rank = sim.law.base, sim.law.rank
    sobol = qmc.Sobol(_dimensions(sim.law), bits=BITS, rng=np.random.default_rng(seed))
    total = 0.0
    for size in sim.blocks(points):
        # The middle of the cell that the point's digits name: never 0, never 1.
        u = sim.ops.asarray(sobol.random(size).T + 0.5**BITS / 2)
        normals = normal_quantile(u[2 : 2 + rank * base], sim.ops)
        z = sim.ops.xp.roll(normals.reshape(rank, base, size), 1, 0)
        total += float(sim.weighted_sample(u[:2], u[2 + rank * base :], z).sum())
    return Moments(1, total / points, 0.0)


CHUNKED: dict[str, tuple[Chunk, int, int]] = {
    "mc": (independent, 1, 2),
    "antithetic": (antithetic, 2, 2),
    "stratified": (stratified, 2, 1),
    "importance": (weighted, 1, 2),
}  # each with the samples of a unit, and the units that a standard error needs
METHODS = (*CHUNKED, "qmc")
WEIGHTED = ("importance", "qmc")


@dataclass(frozen=True)
class Plan:
    """Tasks that each take a seed, and the samples that they draw in all."""

    tasks: list[Task]
    samples: int


def planned(sim: Simulation, method: str, n: int) -> Plan:
    """Split n samples into tasks in a way that nothing but the arguments decides.

    Raises ValueError for an unknown method or an n that gives no standard error.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if method == "qmc":
        n = positive_integer("n", n, least=RANDOMISATIONS * LEAST_POINTS)
        if _dimensions(sim.law) > qmc.Sobol.MAXDIM:
            raise ValueError(
                f"nodes must be fewer for method 'qmc': {_dimensions(sim.law)} "
                f"coordinates, of which Sobol points have at most {qmc.Sobol.MAXDIM}"
            )
        points = 2 ** ((n // RANDOMISATIONS).bit_length() - 1)
        sets = n // points
        return Plan([partial(randomised, sim, points)] * sets, sets * points)
    chunk, unit, least = CHUNKED[method]
    total = positive_integer("n", n, least=unit * least) // unit
    size = max(1, max(CHUNK, sim.ops.block) // (len(sim.law.weights) * sim.law.nodes))
    spans = [
        Span(start, min(size, total - start), total) for start in range(0, total, size)
    ]
    return Plan([partial(chunk, sim, span) for span in spans], unit * total)


def _dimensions(law: Law) -> int:
    return 2 + (law.rank + 1) * law.base


def _sum(parts: Iterable[T]) -> T:
    return reduce(add, parts)

"""Dropping entries of task vectors at random and rescaling the others (DARE)."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mloss.merging.chance import chance_by_entry
from mloss.merging.pruning.given_rates import by_node
from mloss.merging.pruning.node_rates import NodeRates
from mloss.merging.pruning.row_wise import RowStep
from mloss.merging.task_vectors import PieceStep, moved_by_tiles
from mloss.states import State, mergeable

# A piece of the task vectors [q, ...] and the probability to keep an entry in; the
# piece with zeros for what is dropped, and what is kept divided by that probability.
Drop = Callable[[Tensor, float | Tensor], Tensor]
# A piece of the task vectors [q, ...] in; their step [...] out.
Combination = Callable[[Tensor], Tensor]


class Chance:
    """Which entries of task vectors are dropped, for each source apart.

    A name (of an entry, of a layer) has the same random numbers each time it is asked
    for. Raises TypeError for what is no torch.Generator.
    """

    def __init__(self, generator: torch.Generator, *, q: int) -> None:
        self._chance, self._q = chance_by_entry(generator), q

    def of(self, name: str) -> Drop:
        """The drops of the vectors of a name, whose pieces come in flat order.

        Which entries go does not depend on the pieces.
        """
        generators = [self._chance(f"{name} {source}") for source in range(self._q)]

        def dropped(
            vectors: Float[Tensor, "q *piece"], density: float | Tensor
        ) -> Float[Tensor, "q *piece"]:
            draws = [
                torch.rand(vector.shape, generator=own, device=own.device)
                for vector, own in zip(vectors, generators, strict=True)
            ]
            kept = torch.stack(draws).to(vectors.device) < density
            return torch.where(kept, vectors / density, 0)

        return dropped


def dropped_and_combined(
    base: State,
    sources: Sequence[State],
    *,
    generator: torch.Generator,
    density: float,
    combine: Combination,
    scale: float,
    rates: NodeRates | None,
) -> State:
    """Theta + scale * step: task vectors are dropped from, and then combined.

    The rows of nodes that have `rates` are kept with these probabilities. Raises
    ValueError for a density outside (0, 1] and rates that do not fit.
    """
    check_density(density)
    chance = Chance(generator, q=len(sources))

    def step(key: str) -> PieceStep:
        drop = chance.of(key)
        return lambda vectors, _: combine(drop(vectors, density))

    rest = moved_by_tiles(base, sources, combine=step, scale=scale)
    of_rows = dropped_step(chance, combine=combine)
    return by_node(base, sources, rest=rest, rates=rates, step=of_rows, scale=scale)


def dropped_step(chance: Chance, *, combine: Combination) -> RowStep:
    """Keep each row's entries with its rate, rescale and combine them."""

    def step(
        name: str, rows: Float[Tensor, "q node entry"], rates: Float[Tensor, " node"]
    ) -> Float[Tensor, "node entry"]:
        return combine(chance.of(name)(rows, rates[:, None].to(rows)))

    return step


def dropped_sources(
    base: State,
    sources: Sequence[State],
    *,
    generator: torch.Generator,
    density: float,
) -> list[State]:
    """Theta + d_i in float64, d_i the task vectors dropped from and rescaled.

    Entries are computed as they are looked up, the same each time. Raises ValueError
    for a density outside (0, 1].
    """
    check_density(density)
    return [
        _Dropped(base, source, Chance(generator, q=1), density=density)
        for source in sources
    ]


class _Dropped(Mapping[str, Tensor]):
    def __init__(
        self, base: State, source: State, chance: Chance, *, density: float
    ) -> None:
        self._base, self._source = base, source
        self._chance, self._density = chance, density

    def __getitem__(self, key: str) -> Tensor:
        origin, value = self._base[key], self._source[key]
        if not mergeable(origin):
            return value
        vector = value.double() - origin.double()
        dropped = self._chance.of(key)(vector[None], self._density)[0]
        return dropped.add_(origin)

    def __iter__(self) -> Iterator[str]:
        return iter(self._base)

    def __len__(self) -> int:
        return len(self._base)


def check_density(density: float) -> None:
    """Raise ValueError for what is no probability to keep, or 0: one divides by it."""
    if not 0 < density <= 1:
        raise ValueError(f"density must be a fraction in (0, 1], got {density}")

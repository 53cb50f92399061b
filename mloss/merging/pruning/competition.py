"""How task vectors compete for the entries of a model (PCB-Merging)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mloss.merging.pruning.kth_largest import kth_largest
from mloss.states import State
from mloss.weights import weighted_sum

# Of all sizes |t_i| the smallest and the largest this share are moved to the others.
_TAIL = 0.0001
# Values of each task vector at a time.
_AT_ONCE = 2**17


@dataclass(frozen=True)
class Clip:
    """The least and the greatest size that an entry of each task vector counts as."""

    least: Float[Tensor, " q"]
    greatest: Float[Tensor, " q"]

    def sizes(self, vectors: Float[Tensor, "q *piece"]) -> Float[Tensor, "q *piece"]:
        """|t_i| within the limits."""
        least, greatest = _beside(vectors, self.least, self.greatest)
        return vectors.abs().clamp(least, greatest)

    def shares(self, vectors: Float[Tensor, "q *piece"]) -> Float[Tensor, "q *piece"]:
        """Sizes from 0 for the least to 1 for the greatest."""
        least, greatest = _beside(vectors, self.least, self.greatest)
        return _placed_between(self.sizes(vectors), least, greatest)


def balances(
    vectors: Float[Tensor, "q *piece"], clip: Clip, *, weights: Float[Tensor, " q"]
) -> Float[Tensor, "q *piece"]:
    """How much each task vector has to say on each entry, up to a positive factor.

    exp(q n_i^2) tanh(t_i T): n_i is the share of |t_i| within its vector (intra-
    balancing), T = q sum_j w_j t_j the sum of the task vectors (inter-balancing). The
    factor is exp(-q).
    """
    q = len(vectors)
    total = q * weighted_sum(weights, vectors)
    return torch.exp(q * (clip.shares(vectors) ** 2 - 1)) * torch.tanh(vectors * total)


def shares_kept(
    balances: Float[Tensor, "q *piece"],
    lowest: Float[Tensor, "q *rows"],
    highest: Float[Tensor, "q *rows"],
) -> Float[Tensor, "q *piece"]:
    """Balances from 0 for the lowest that is kept, and all below, to 1 for the highest.

    All are 0 where the lowest is the highest or infinite, which is to keep nothing.
    """
    low, high = _beside(balances, lowest, highest)
    return _placed_between(balances, low, high).clamp(min=0)


def _placed_between(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.where(high > low, (values - low) / (high - low), 0)


def _beside(values: Tensor, *limits: Tensor) -> list[Tensor]:
    """Limits by source, or by source and row, with axes for the rest of the values."""
    return [
        limit.to(values.device).reshape(*limit.shape, *[1] * (values.ndim - limit.ndim))
        for limit in limits
    ]


def balanced_mean(
    vectors: Float[Tensor, "q *piece"],
    shares: Float[Tensor, "q *piece"],
    clip: Clip,
    *,
    weights: Float[Tensor, " q"],
) -> Float[Tensor, "*piece"]:
    """Mean of the clipped task vectors by weight and share; 0 where no share is."""
    sizes = vectors.sign() * clip.sizes(vectors)
    mass = weighted_sum(weights, shares)
    return weighted_sum(weights, shares * sizes) / torch.where(mass > 0, mass, 1)


def measured_clip(base: State, sources: Sequence[State], keys: Sequence[str]) -> Clip:
    """The clip of the task vectors of these entries, by the ranks the authors take.

    Of n sizes in ascending order those at n * 0.0001 and n * 0.9999 - 1, counted from
    0 and rounded down: of few sizes the smallest and the second largest.
    """

    def sizes() -> Iterator[tuple[int, Tensor]]:
        for vectors in _pieces(base, sources, keys):
            yield from enumerate(torch.cat([vectors, vectors]).abs())

    q, total = len(sources), _total(base, keys)
    last = max(int(total * (1 - _TAIL) - 1), 0)
    counts = [total - int(total * _TAIL), total - last]
    limits = kth_largest(sizes, [n for n in counts for _ in sources], size=total)
    return Clip(limits[:q], limits[q:])


def measured_range(
    base: State,
    sources: Sequence[State],
    keys: Sequence[str],
    *,
    clip: Clip,
    weights: Float[Tensor, " q"],
    density: float,
) -> tuple[Float[Tensor, " q"], Float[Tensor, " q"]]:
    """The lowest balance of each source that is kept, and its highest of all."""

    def both() -> Iterator[tuple[int, Tensor]]:
        for vectors in _pieces(base, sources, keys):
            values = balances(vectors, clip, weights=weights)
            yield from enumerate(torch.cat([values, values]))

    q, total = len(sources), _total(base, keys)
    counts = [kept_by_balance(density, total)] * q + [min(1, total)] * q
    limits = kth_largest(both, counts, size=total)
    return limits[:q], limits[q:]


def ranges_of_rows(
    balances: Float[Tensor, "q node entry"], rates: Float[Tensor, " node"]
) -> tuple[Float[Tensor, "q node"], Float[Tensor, "q node"]]:
    """The lowest balance that each row keeps at its rate, and the highest of it."""
    size = balances.shape[-1]
    dropped = [size - kept_by_balance(rate, size) for rate in rates.tolist()]
    ascending = balances.sort(-1).values
    above = torch.full_like(ascending[..., :1], torch.inf)
    at = torch.tensor(dropped, device=balances.device).expand(len(balances), -1)
    lowest = torch.cat([ascending, above], -1).gather(-1, at[..., None])
    return lowest[..., 0], ascending[..., -1]


def kept_by_balance(density: float, size: int) -> int:
    """How many of `size` entries stay, the last of them with a share of 0.

    All above the one at size * (1 - density), rounded down, in ascending order.
    """
    return size - int(size * (1 - density))


def _total(base: State, keys: Sequence[str]) -> int:
    return sum(base[key].numel() for key in keys)


def _pieces(
    base: State, sources: Sequence[State], keys: Sequence[str]
) -> Iterator[Float[Tensor, "q value"]]:
    """Task vectors of entries, some values at a time."""
    for key in keys:
        origin, *values = (state[key].reshape(-1) for state in (base, *sources))
        for start in range(0, len(origin), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            yield torch.stack([v[part].double() for v in values]) - origin[part]

"""What the samples show at one site, gathered piece by piece in memory that is flat."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.linalg import vector_norm

from mloss.definitions import both_sides, relative
from mloss.finite import all_finite
from mloss.predict import Moments
from mloss.ranks import gathered
from mloss.readings import Readings
from mloss.reservoir import Reservoir
from mloss.running_mean import RunningMean
from mloss.sample_tokens import summed, tiles, token_shares
from mloss.side_by_side import Each
from mloss.sites import Site
from mloss.weights import weighted_sum

# Pre-activations held of all models together: 32 MiB in float32. With fewer at a time
# the matrix products that make them are slower, with more the memory is always new.
_VALUES = 2**23
# How many of the sources' are worked on at a time in float64, by each thread: what a
# CPU's cache holds.
_CACHED = 2**19
# Samples kept for quantiles, and tokens for the density of the base.
_KEPT = 256


@dataclass(frozen=True)
class Draws:
    """Random numbers in [0, 1), two for each sample: what is kept of them all.

    The samples with the smallest `keys` are kept; of each of them the density of the
    base sees one token, at the quantile `points` of the tokens.
    """

    keys: Float[Tensor, " sample"]
    points: Float[Tensor, " sample"]


class Tally:
    """Means over samples of a site's M-Loss and of what its prediction needs.

    Within a sample the tokens are averaged first: samples are independent, tokens are
    not. Of a padded sample only the real tokens count. What is kept is on the CPU.
    """

    def __init__(self, site: Site, *, weights: Tensor, eps: float) -> None:
        self.site, self.weights, self.eps = site, weights, eps
        self.means: dict[str, RunningMean] = defaultdict(RunningMean)
        self.losses, self.bases = Reservoir(_KEPT), Reservoir(_KEPT)

    def add(
        self,
        inputs: Float[Tensor, "sample part ..."],
        read: Callable[[Tensor], Readings],
        *,
        positions: int,
        nodes: int,
        tokens: Bool[Tensor, "sample position"] | None,
        draws: Draws,
        each: Each = map,
    ) -> None:
        """Count in one batch, a piece at a time; `read` runs the models on a piece.

        Each part of a sample's inputs becomes as many of its `positions`: one token
        of a linear layer one, the one image of a convolution all of them. What was
        read is worked on in tiles, by `each` as by `map`.
        """
        shares = token_shares(inputs, tokens, positions=positions)
        chosen = _one_each(shares, draws.points)
        totals: dict[str, Tensor] = {}
        samples, parts = inputs.shape[:2]
        held = _VALUES // (nodes * (len(self.weights) + 2))
        for rows, columns in tiles(samples, parts, most=held * parts // positions):
            seen = read(inputs[rows, columns])
            if parts < positions:
                columns = slice(positions)
            weights = shares[rows, columns], chosen[rows, columns]
            for piece, name, value in self._sums(seen, *weights, each=each):
                if name not in totals:
                    totals[name] = value.new_zeros(samples, value.shape[1])
                totals[name][rows][piece] += value
        self._count(totals, draws.keys)

    def _sums(
        self,
        seen: Readings,
        shares: Float[Tensor, "sample token"],
        chosen: Float[Tensor, "sample token"],
        *,
        each: Each,
    ) -> Iterator[tuple[slice, str, Float[Tensor, "sample entry"]]]:
        """Sums over tokens, some samples and tokens at a time."""
        samples, tokens, nodes = seen.base.h.shape
        on_cpu = shares.device.type == "cpu"
        most = (_CACHED if on_cpu else _VALUES) // (nodes * len(self.weights))

        def sums(tile: tuple[slice, slice]) -> Mapping[str, Tensor]:
            return self._measured(seen.at(*tile), shares[tile], chosen[tile])

        pieces = list(tiles(samples, tokens, most=most))
        found = each(sums, pieces) if on_cpu else map(sums, pieces)
        for (rows, _), values in zip(pieces, found, strict=True):
            for name, value in values.items():
                yield rows, name, value

    def _measured(
        self,
        seen: Readings,
        shares: Float[Tensor, "sample token"],
        chosen: Float[Tensor, "sample token"],
    ) -> Mapping[str, Float[Tensor, "sample entry"]]:
        """All that is averaged, summed over tokens; the losses by Eqs. 3, 4, 6, 7."""
        base, h = seen.base.h.double(), seen.h
        mean = weighted_sum(self.weights, h)
        if not all_finite(mean):
            raise ValueError(f"{self.site.layer!r} gives an infinity or a NaN")
        merged, ensembled = both_sides(
            h,
            self.site.activation,
            mean=seen.merged.h.double() if seen.merged else mean,
            weights=self.weights,
            up=seen.up,
        )
        loss, size = (merged - ensembled).abs_(), merged.abs()
        norm, norms = (vector_norm(v, dim=-1, keepdim=True) for v in (loss, size))
        mean -= base
        h -= base
        # All real tokens of a sample have one share.
        share = shares.amax(dim=1)
        if (shares == 0).any():
            h *= (shares > 0)[..., None]
        each = h.movedim(1, 0).flatten(2)
        covariance = (each @ each.mT).flatten(1) * share[:, None] / base.shape[-1]
        squares = h.square_().sum(dim=-2) * share[:, None]
        variance = weighted_sum(self.weights, squares)
        averaged = {
            "node": loss,
            "layer": norm,
            "node_normalized": relative(loss, size, eps=self.eps),
            "layer_normalized": relative(norm, norms, eps=self.eps),
            "base_square": base.square(),
        }
        return {name: summed(value, shares) for name, value in averaged.items()} | {
            "base": summed(base, chosen),
            "jensen_variance": variance - summed(mean.square_(), shares),
            "shift_square": squares.mean(dim=0),
            "covariance": covariance,
        }

    def _count(self, totals: dict[str, Tensor], keys: Tensor) -> None:
        self.bases.add(totals.pop("base"), keys)
        self.losses.add(totals["node"], keys)
        for name, total in totals.items():
            self.means[name].add(total.cpu())

    def gather(self) -> None:
        """Count in what the other processes have counted, if there are any."""
        each = gathered((self.means, self.losses, self.bases))
        self.means = defaultdict(RunningMean)
        self.losses, self.bases = Reservoir(_KEPT), Reservoir(_KEPT)
        for means, losses, bases in each:
            for name, mean in means.items():
                self.means[name].join(mean)
            self.losses.join(losses)
            self.bases.join(bases)

    @property
    def samples(self) -> int:
        """How many samples have been counted in."""
        return self.means["layer"].count

    @property
    def moments(self) -> Moments:
        """What a prediction may know of the site."""
        q = len(self.weights)
        return Moments(
            base_square=self.means["base_square"].mean,
            jensen_variance=self.means["jensen_variance"].mean.clamp(min=0),
            shift_square=self.means["shift_square"].mean,
            covariance=self.means["covariance"].mean.reshape(q, q),
        )


def _one_each(
    shares: Float[Tensor, "sample token"], points: Float[Tensor, " sample"]
) -> Float[Tensor, "sample token"]:
    """One token of each sample, at a quantile of its shares: a row with a single 1."""
    upto = shares.cumsum(dim=1)
    level = points.to(shares)[:, None] * upto[:, -1:]
    drawn = (upto <= level).sum(dim=1, keepdim=True)
    return torch.zeros_like(shares).scatter_(1, drawn, 1.0)

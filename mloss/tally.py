"""What the samples show at one site, gathered piece by piece in memory that is flat."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.linalg import vector_norm

from mloss.definitions import both_sides, relative
from mloss.predict import Moments
from mloss.reservoir import Reservoir
from mloss.running_mean import RunningMean
from mloss.sites import Site
from mloss.weights import weighted_sum

# Float64 values held of all models together while a site is scored: 64 MiB.
_VALUES = 2**23
# Samples kept for quantiles, and tokens for the density of the base.
_KEPT = 256


@dataclass(frozen=True)
class Reading:
    """Pre-activations of one model at a site, and what its activation multiplies."""

    h: Float[Tensor, "sample token node"]
    up: Float[Tensor, "sample token node"] | None


@dataclass(frozen=True)
class Readings:
    """What the base, the merge and the sources each make of one shared input.

    `merged` is None where it is the weighted sum of the sources'.
    """

    base: Reading
    merged: Reading | None
    sources: Sequence[Reading]


class Tally:
    """Means over samples of a site's M-Loss and of what its prediction needs.

    Within a sample the tokens are averaged first: samples are independent, tokens are
    not. Of a padded sample only the real tokens count.
    """

    def __init__(self, site: Site, *, weights: Tensor, eps: float) -> None:
        self.site, self.weights, self.eps = site, weights, eps
        self.means: dict[str, RunningMean] = {}
        self.losses, self.bases = Reservoir(_KEPT), Reservoir(_KEPT, seed=1)
        self._generator = torch.Generator().manual_seed(2)

    def add(
        self,
        inputs: Float[Tensor, "sample token ..."],
        read: Callable[[Tensor], Readings],
        *,
        nodes: int,
        tokens: Bool[Tensor, "sample position"] | None,
    ) -> None:
        """Count in one batch, a piece at a time; `read` runs the models on a piece."""
        real = _shares(inputs, tokens)
        at_once = max(1, _VALUES // (nodes * (len(self.weights) + 2)))
        samples = max(1, at_once // inputs.shape[1])
        for start in range(0, len(inputs), samples):
            part = slice(start, start + samples)
            self._add_samples(inputs[part], real[part], read, positions=at_once)

    def _add_samples(
        self,
        inputs: Float[Tensor, "sample token ..."],
        shares: Float[Tensor, "sample token"],
        read: Callable[[Tensor], Readings],
        *,
        positions: int,
    ) -> None:
        chosen = self._one_each(shares)
        totals: dict[str, Tensor] = {}
        for start in range(0, inputs.shape[1], positions):
            piece = slice(start, start + positions)
            seen = read(inputs[:, piece])
            share, picked = shares[:, piece], chosen[:, piece]
            if seen.base.h.shape[1] != share.shape[1]:
                # A convolution: one input, many positions, and none of them padding.
                share = torch.full_like(seen.base.h[..., 0], 1 / seen.base.h.shape[1])
                picked = self._one_each(share)
            values = {"base": (seen.base.h, picked)}
            values |= {name: (v, share) for name, v in self._measures(seen).items()}
            for name, (value, weight) in values.items():
                total = torch.einsum("stn,st->sn", value, weight)
                totals[name] = totals[name] + total if name in totals else total
        self.bases.add(totals.pop("base"))
        self.losses.add(totals["node"])
        for name, total in totals.items():
            self.means.setdefault(name, RunningMean()).add(total)

    def _one_each(
        self, shares: Float[Tensor, "sample token"]
    ) -> Float[Tensor, "sample token"]:
        """One token of each sample, drawn by the shares, as a row with a single 1."""
        drawn = torch.multinomial(shares.cpu(), 1, generator=self._generator)
        return torch.zeros_like(shares).scatter_(1, drawn.to(shares.device), 1.0)

    def _measures(self, seen: Readings) -> Mapping[str, Tensor]:
        """All that is averaged, [sample, token, ...]; the losses by Eqs. 3, 4, 6, 7."""
        ups = [source.up for source in seen.sources if source.up is not None]
        h = torch.stack([source.h for source in seen.sources])
        merged, ensembled = both_sides(
            h,
            self.site.activation,
            weights=self.weights,
            up=torch.stack(ups) if ups else None,
            merged=seen.merged.h if seen.merged else None,
        )
        loss, size = (merged - ensembled).abs(), merged.abs()
        norm, norms = (vector_norm(v, dim=-1, keepdim=True) for v in (loss, size))
        h -= seen.base.h
        nodes = h.shape[-1]
        variance = weighted_sum(self.weights, (shift.square() for shift in h))
        return {
            "node": loss,
            "layer": norm,
            "node_normalized": relative(loss, size, eps=self.eps),
            "layer_normalized": relative(norm, norms, eps=self.eps),
            "base_square": seen.base.h.square(),
            "jensen_variance": variance - weighted_sum(self.weights, h).square(),
            "shift_square": h.square().mean(dim=0),
            "covariance": torch.einsum("istn,jstn->stij", h, h).flatten(2) / nodes,
        }

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


def _shares(inputs: Tensor, tokens: Tensor | None) -> Float[Tensor, "sample token"]:
    """Weight of each token in its sample's mean; padding has none.

    Inputs without the padded axis, of a layer that sees a sample as a whole, have no
    padding in them.
    """
    if tokens is None or inputs.shape[:2] != tokens.shape:
        real = torch.ones(inputs.shape[:2], dtype=torch.float64, device=inputs.device)
    else:
        real = tokens.to(device=inputs.device, dtype=torch.float64)
    return real / real.sum(dim=1, keepdim=True)

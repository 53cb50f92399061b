"""How far merge and ensemble are apart at the nodes of one site, for ranking them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mloss.activations import Activation
from mloss.definitions import both_sides
from mloss.pre_activations import Reading, SiteLayers
from mloss.readings import wide
from mloss.running_mean import RunningMean
from mloss.sample_tokens import summed, tiles, token_shares
from mloss.side_by_side import Each
from mloss.weights import weighted_sum

Mean = Literal["absolute", "square"]

# Pre-activations of all models held at a time, and how many of them are worked on in
# float64: what a CPU's cache holds.
_HELD = 2**23
_CACHED = 2**19


@dataclass(frozen=True)
class NodeScores:
    """What is averaged at the nodes of a site, and over what.

    mean: the "absolute" discrepancy (Eq. 4) or its "square".
    tokens: of each sample so many tokens are drawn at random; None is all of them.
    """

    activation: Activation
    weights: Float[Tensor, " q"]
    mean: Mean = "absolute"
    tokens: int | None = None

    def __call__(
        self,
        layers: Sequence[SiteLayers],
        entering: Mapping[int, Tensor],
        masks: Sequence[Bool[Tensor, "sample position"] | None],
        *,
        each: Each = map,
    ) -> Float[Tensor, " node"]:
        """Average over the tokens of a sample, then over the samples of all batches.

        `layers` are those of each source, `entering` what reaches them, by the index
        of the batch, and `masks` say where a padded batch has tokens. Tiles of what
        the layers make of it are worked on by `each` as by `map`.
        """
        means, chance = RunningMean(), torch.Generator().manual_seed(0)
        linear = isinstance(layers[0].layer, nn.Linear)
        for index, x in entering.items():
            if linear:
                tokens = x.flatten(1, -2) if x.ndim > 2 else x[:, None]
                drawn, mask = _drawn(tokens, masks[index], self.tokens, chance)
                means.add(self._of_batch(layers, drawn, mask, each=each))
            else:
                means.add(self._of_batch(layers, x[:, None], None, each=each))
        return means.mean

    def _of_batch(
        self,
        layers: Sequence[SiteLayers],
        parts: Float[Tensor, "sample part ..."],
        mask: Bool[Tensor, "sample position"] | None,
        *,
        each: Each,
    ) -> Float[Tensor, "sample node"]:
        """Means over the tokens of each sample, a piece at a time.

        A part is one token, or all of a convolution's.
        """
        linear = isinstance(layers[0].layer, nn.Linear)
        samples, count = parts.shape[:2]
        first = layers[0](parts[:1, :1] if linear else parts[0])
        positions, nodes = first.h.shape[1] * count, first.h.shape[2]
        shares = token_shares(parts, mask, positions=positions)
        totals = parts.new_zeros(samples, nodes, dtype=torch.float64)
        held = _HELD // (nodes * len(layers))
        for rows, columns in tiles(samples, count, most=held * count // positions):
            piece = parts[rows, columns]
            seen = [layer(piece if linear else piece.squeeze(1)) for layer in layers]
            own = shares[rows, columns if linear else slice(positions)]
            for place, found in self._tiled(seen, own, each=each):
                totals[rows][place] += found
        return totals

    def _tiled(
        self,
        seen: Sequence[Reading],
        shares: Float[Tensor, "sample token"],
        *,
        each: Each,
    ) -> Iterator[tuple[slice, Float[Tensor, "sample node"]]]:
        """Sums over tokens, a tile that a cache holds at a time."""
        samples, tokens, nodes = seen[0].h.shape
        on_cpu = shares.device.type == "cpu"
        most = (_CACHED if on_cpu else _HELD) // (nodes * len(seen))

        def sums(tile: tuple[slice, slice]) -> Float[Tensor, "sample node"]:
            return summed(self._loss([one.at(*tile) for one in seen]), shares[tile])

        pieces = list(tiles(samples, tokens, most=most))
        found = each(sums, pieces) if on_cpu else map(sums, pieces)
        return ((rows, own) for (rows, _), own in zip(pieces, found, strict=True))

    def _loss(self, seen: Sequence[Reading]) -> Float[Tensor, "sample token node"]:
        h = wide([one.h for one in seen])
        ups = [one.up for one in seen if one.up is not None]
        merged, ensembled = both_sides(
            h,
            self.activation,
            mean=weighted_sum(self.weights, h),
            weights=self.weights,
            up=wide(ups) if ups else None,
        )
        apart = merged.sub_(ensembled)
        return apart.square_() if self.mean == "square" else apart.abs_()


def _drawn(
    x: Float[Tensor, "sample token feature"],
    mask: Bool[Tensor, "sample position"] | None,
    count: int | None,
    chance: torch.Generator,
) -> tuple[Tensor, Tensor | None]:
    """Some of the tokens of each sample, each as likely as the others."""
    if mask is not None and mask.shape != x.shape[:2]:
        mask = None
    if count is None or count >= x.shape[1]:
        return x, mask
    keys = torch.rand(x.shape[:2], generator=chance)
    # Padding comes last, and counts for nothing where it is drawn all the same.
    keys = keys if mask is None else keys.where(mask.cpu(), 2.0)
    drawn = keys.argsort(dim=1)[:, :count].sort(dim=1).values.to(x.device)
    at = drawn[..., None].expand(-1, -1, x.shape[-1])
    return x.gather(1, at), None if mask is None else mask.gather(1, drawn)

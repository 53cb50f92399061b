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
from mloss.running_mean import RunningMean, token_means
from mloss.weights import weighted_sum

Mean = Literal["absolute", "square"]

# Pre-activations of all models held at a time, and how many of them are worked on in
# float64: what a CPU's cache holds.
_HELD = 2**24
_CACHED = 2**20


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
    ) -> Float[Tensor, " node"]:
        """Average over the tokens of a sample, then over the samples of all batches.

        `layers` are those of each source, `entering` what reaches them, by the index
        of the batch, and `masks` say where a padded batch has tokens.
        """
        means, chance = RunningMean(), torch.Generator().manual_seed(0)
        for index, x in entering.items():
            mask = masks[index]
            if isinstance(layers[0].layer, nn.Linear) and x.ndim > 2:
                x, mask = _drawn(x.flatten(1, -2), mask, self.tokens, chance)
            for rows in _parts(len(x), _HELD // (len(layers) * _values(layers[0], x))):
                each = [layer(x[rows]) for layer in layers]
                means.add(self._losses(each, None if mask is None else mask[rows]))
        return means.mean

    def _losses(
        self, each: Sequence[Reading], mask: Tensor | None
    ) -> Float[Tensor, "sample node"]:
        samples, tokens, nodes = each[0].h.shape
        held = _CACHED // (len(each) * tokens * nodes)
        return torch.cat(
            [
                token_means(
                    self._loss([reading.at(rows) for reading in each]),
                    None if mask is None else mask[rows],
                )
                for rows in _parts(samples, held)
            ]
        )

    def _loss(self, each: Sequence[Reading]) -> Float[Tensor, "sample token node"]:
        h = torch.stack([reading.h.double() for reading in each])
        ups = [reading.up.double() for reading in each if reading.up is not None]
        merged, ensembled = both_sides(
            h,
            self.activation,
            mean=weighted_sum(self.weights, h),
            weights=self.weights,
            up=torch.stack(ups) if ups else None,
        )
        apart = merged.sub_(ensembled)
        return apart.square_() if self.mean == "square" else apart.abs_()


def _drawn(
    x: Float[Tensor, "sample token feature"],
    mask: Bool[Tensor, "sample token"] | None,
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


def _values(layer: SiteLayers, x: Tensor) -> int:
    """How many pre-activations one model has for one sample."""
    return layer(x[:1]).h.numel()


def _parts(length: int, most: int) -> Iterator[slice]:
    step = max(1, most)
    return (slice(start, start + step) for start in range(0, length, step))

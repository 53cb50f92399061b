"""What the base, the merge and the sources make of one shared input at a site."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.pre_activations import Reading, SiteLayers
from mloss.sites import Site
from mloss.states import State


@dataclass(frozen=True)
class Readings:
    """Pre-activations of the base, the merge and the sources on one shared input.

    `merged` is None where it is the weighted sum of the sources'.
    """

    base: Reading
    merged: Reading | None
    sources: Sequence[Reading]

    def at(self, samples: slice, tokens: slice) -> "Readings":
        """What they make of some samples and some of their tokens."""
        merged = None if self.merged is None else self.merged.at(samples, tokens)
        each = [source.at(samples, tokens) for source in self.sources]
        return Readings(self.base.at(samples, tokens), merged, each)

    @property
    def h(self) -> Float[Tensor, "q sample token node"]:
        """The sources' pre-activations, in float64."""
        return wide([source.h for source in self.sources])

    @property
    def up(self) -> Float[Tensor, "q sample token node"] | None:
        """What their activations are multiplied by in a gated pair, in float64."""
        each = [source.up for source in self.sources if source.up is not None]
        return wide(each) if each else None


@dataclass(frozen=True)
class FamilyLayers:
    """The layers of a site in the base, the merge and the sources."""

    base: SiteLayers
    merged: SiteLayers | None
    sources: Sequence[SiteLayers]

    @classmethod
    def of(
        cls,
        model: nn.Module,
        site: Site,
        base: State,
        *,
        merged: State,
        sources: Sequence[State],
    ) -> "FamilyLayers":
        """Read from every state what belongs to the site."""
        # Averaged parameters of a linear layer are averages of its outputs.
        apart = site.norm is not None
        return cls(
            SiteLayers.of(model, site, base),
            SiteLayers.of(model, site, merged) if apart else None,
            [SiteLayers.of(model, site, source) for source in sources],
        )

    def parts(self, x: Float[Tensor, "sample ..."]) -> Float[Tensor, "sample part ..."]:
        """Inputs cut into what can be read alone: tokens, or a convolution's images."""
        if not self._linear:
            return x[:, None]
        return x.flatten(1, -2) if x.ndim > 2 else x[:, None]

    def positions(self, parts: Float[Tensor, "sample part ..."]) -> int:
        """How many tokens a sample has at the site, where it has so many parts."""
        if self._linear:
            return parts.shape[1]
        return self.base(parts[:1].squeeze(1)).h.shape[1]

    @property
    def nodes(self) -> int:
        """How many nodes the site has."""
        return len(self.base.parameters[self.base.site.layer]["weight"])

    @property
    def _linear(self) -> bool:
        return isinstance(self.base.layer, nn.Linear)

    def __call__(self, parts: Float[Tensor, "sample part ..."]) -> Readings:
        """Apply all of them to some parts of some samples."""
        x = parts if self._linear else parts.squeeze(1)
        merged = None if self.merged is None else self.merged(x)
        return Readings(self.base(x), merged, [source(x) for source in self.sources])


def wide(
    each: Sequence[Float[Tensor, "sample token node"]],
) -> Float[Tensor, "q sample token node"]:
    """Pre-activations of several models in one tensor, in float64."""
    stacked = each[0].new_empty((len(each), *each[0].shape), dtype=torch.float64)
    for place, value in zip(stacked, each, strict=True):
        place.copy_(value)
    return stacked

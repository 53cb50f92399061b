"""Samples carried through one model, while every model is shown what reaches a site."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from mloss.batches import Batch, Data, batches, part, real_tokens, size
from mloss.lockstep import in_lockstep
from mloss.ranks import gathered, own_samples
from mloss.readings import FamilyLayers
from mloss.running_mean import joined
from mloss.side_by_side import Each, side_by_side
from mloss.sites import Site, find_sites
from mloss.states import State
from mloss.streaming import AveragedState, placed, streamed
from mloss.tally import Draws, Tally


@dataclass(frozen=True)
class Passing:
    """The architecture, the states of all models, and which of them is run."""

    model: nn.Module
    carrier: State
    base: State
    merged: State
    sources: Sequence[State]
    device: torch.device | None
    dtype: torch.dtype | None

    @classmethod
    def of(
        cls,
        model: nn.Module,
        base: State,
        sources: Sequence[State],
        *,
        weights: Tensor,
        carried_by_merge: bool,
        device: str | torch.device | None,
        dtype: torch.dtype | None,
    ) -> "Passing":
        """Put everything on the device asked for, as it is looked up."""
        where = None if device is None else torch.device(device)
        start, *each = (placed(state, device=where) for state in (base, *sources))
        averaged = AveragedState(start, each, weights=weights)
        first, merged, *others = (
            placed(state, dtype=dtype) for state in (start, averaged, *each)
        )
        carrier = merged if carried_by_merge else first
        return cls(model, carrier, first, merged, others, where, dtype)

    def tallied(
        self,
        data: Data,
        *,
        weights: Tensor,
        eps: float,
        together: int,
        until: float | None,
        at_least: int,
    ) -> list[Tally]:
        """Tallies of all sites in forward order, over all samples of all processes.

        `together` samples run at a time. With `until`, `at_least` of them do, and are
        enough where every layer's mean is known to that relative standard error.
        """
        generator = torch.Generator().manual_seed(0)
        tallies: list[Tally] = []
        seen = 0
        most = together if until is None else min(together, at_least)
        with side_by_side() as each:
            for inputs in _rounds(data, of=most):
                if not tallies:
                    sites = self._sites(part(inputs[0], slice(1)))
                    tallies = [Tally(site, weights=weights, eps=eps) for site in sites]
                self._run(_own_parts(inputs, generator), tallies, each=each)
                seen += sum(map(size, inputs))
                if until is not None and seen >= at_least and _settled(tallies, until):
                    break
        for tally in tallies:
            tally.gather()
        return tallies

    def _sites(self, batch: Batch) -> tuple[Site, ...]:
        # In the base, whose parameters need no averaging.
        with streamed(self.model, self.base, device=self.device, dtype=self.dtype):
            return find_sites(self.model, batch)

    def _run(
        self,
        inputs: Sequence[tuple[Batch, Draws]],
        tallies: Iterable[Tally],
        *,
        each: Each,
    ) -> None:
        """Run the carrier, and at each site, when its turn comes, all the others."""

        def count(tally: Tally, entering: Mapping[int, Tensor]) -> None:
            layers = FamilyLayers.of(
                self.model,
                tally.site,
                self.base,
                merged=self.merged,
                sources=self.sources,
            )
            for index, x in entering.items():
                batch, draws = inputs[index]
                parts = layers.parts(x)
                tally.add(
                    parts,
                    layers,
                    positions=layers.positions(parts),
                    nodes=layers.nodes,
                    tokens=real_tokens(batch),
                    draws=draws,
                    each=each,
                )

        gates = {tally.site.layer: partial(count, tally) for tally in tallies}
        in_lockstep(
            self.model,
            self.carrier,
            [batch for batch, _ in inputs],
            before=gates,
            to_the_end=False,
            device=self.device,
            dtype=self.dtype,
        )


def _rounds(data: Data, *, of: int) -> Iterator[list[Batch]]:
    """Batches with so many samples together or more; those that are left at the end."""
    together: list[Batch] = []
    for batch in batches(data):
        together.append(batch)
        if sum(map(size, together)) >= of:
            yield together
            together = []
    if together:
        yield together


def _own_parts(
    inputs: Iterable[Batch], generator: torch.Generator
) -> list[tuple[Batch, Draws]]:
    """Samples of each batch that are this process's, with their random numbers."""
    parts = []
    for batch in inputs:
        # Of every sample, so that a process draws what one alone would.
        drawn = torch.rand(size(batch), 2, generator=generator, dtype=torch.float64)
        own = own_samples(size(batch))
        if len(drawn[own]):
            draws = Draws(*drawn[own].unbind(dim=1))
            parts.append((part(batch, own), draws))
    return parts


def _settled(tallies: Iterable[Tally], until: float) -> bool:
    """Whether every layer's M-Loss is known to that relative standard error."""
    layers = [joined(gathered(tally.means["layer"])) for tally in tallies]
    return all(bool(m.stderr <= until * m.mean) for m in layers)

"""The models and samples that a command line names, opened and checked."""

import argparse
import inspect
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from mloss.batches import Batch
from mloss.calibration import Calibration, open_calibration
from mloss.checkpoints import (
    Checkpoint,
    as_source,
    empty_model,
    open_checkpoint,
    to_transformers,
)
from mloss.commands.options import DTYPES, PROGRAM
from mloss.given_models import Runnable, configured, runnable
from mloss.progress import tracked
from mloss.states import State, state_of
from mloss.streaming import placed
from mloss.weights import merging_weights

# What a model of transformers calls each kind of sample.
_INPUTS = {"image": "pixel_values", "text": "input_ids"}


@dataclass(frozen=True)
class Family:
    """A base and its sources, under its names, with the sources' merging weights."""

    base: Checkpoint
    sources: list[Checkpoint]
    weights: Tensor

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Family":
        """Open what the options name. Raises ValueError where that fails."""
        base = _opened(options.base, quick_gelu=options.quick_gelu)
        sources = [as_source(base, open_checkpoint(name)) for name in options.sources]
        weights = getattr(options, "weights", None)
        return cls(base, sources, merging_weights(weights, q=len(sources)))

    def runnable(self, options: argparse.Namespace) -> Runnable:
        """Build the model, with all weights under its names, where they are to run."""
        return _placed(runnable(self.base, self.sources), options)

    def runnable_with(self, merged: State, options: argparse.Namespace) -> Runnable:
        """Build the model for a merge, under the base's names on disk, as base."""
        given = runnable(merged, self.sources, base_is="merged")
        return _placed(given, options)

    def configured_base(self) -> Checkpoint:
        """The base, with a source's configuration and files where it has none."""
        donor = configured(self.base, self.sources)
        if self.base.config is not None or donor.config is None:
            return self.base
        return replace(
            self.base,
            layout=donor.layout,
            config=donor.config,
            directory=donor.directory,
        )

    def samples(self, options: argparse.Namespace) -> "Samples":
        """Open the data for the models. Raises ValueError where they do not fit."""
        directory = options.processor or self.base.directory
        if directory is None:
            raise ValueError("--processor must say which tokenizer or processor to use")
        calibration = open_calibration(
            options.data, checkpoint=directory, seed=options.seed
        )
        model = empty_model(configured(self.base, self.sources))
        _check_takes(model, calibration.modality, self.base.source)
        dtype = DTYPES.get(options.dtype)
        return Samples(calibration, options.samples, options.batch, dtype)


@dataclass(frozen=True)
class Samples:
    """Batches of the same samples, as often as they are needed.

    `skipped` has a line on every sample so far that could not be read.
    """

    calibration: Calibration
    count: int
    batch: int
    dtype: torch.dtype | None
    skipped: dict[str, None] = field(default_factory=dict)

    def batches(self, description: str, *, count: int | None = None) -> Iterator[Batch]:
        """The first `count` samples, counted on a terminal as they go by."""
        wanted = min(count or self.count, len(self.calibration.items))
        found = self.calibration.batches(wanted, size=self.batch)
        return tracked(self._cast(found), description, total=-(-wanted // self.batch))

    def report_skipped(self, command: str) -> None:
        """Say on standard error which samples could not be read in any pass."""
        for line in self.skipped:
            print(f"{PROGRAM} {command}: skipped {line}", file=sys.stderr)

    def _cast(self, found: Iterable[dict[str, Tensor]]) -> Iterator[Batch]:
        try:
            for batch in found:
                yield dict(placed(batch, dtype=self.dtype))
        finally:  # who has seen enough does not come back
            self.skipped.update(dict.fromkeys(self.calibration.skipped))


def _placed(given: Runnable, options: argparse.Namespace) -> Runnable:
    dtype = DTYPES.get(options.dtype)
    base, *sources = (
        placed(state_of(model), device=options.device, dtype=dtype)
        for model in (given.base, *given.sources)
    )
    # Buffers that a model makes for itself keep their precision, as rotary angles need.
    given.model.to(device=options.device)
    return replace(given, base=base, sources=sources)


def _opened(source: str, *, quick_gelu: bool | None) -> Checkpoint:
    checkpoint = open_checkpoint(source)
    if checkpoint.layout == "open_clip":
        return to_transformers(checkpoint, quick_gelu=quick_gelu)
    return checkpoint


def _check_takes(model: nn.Module, modality: str, source: str) -> None:
    """Raise ValueError where the class of a model has no argument for such samples."""
    wanted = _INPUTS[modality]
    if wanted not in inspect.signature(type(model).forward).parameters:
        takes = getattr(model, "main_input_name", "something else")
        raise ValueError(
            f"--data holds {modality}s, but the model of {source} takes {takes}"
        )

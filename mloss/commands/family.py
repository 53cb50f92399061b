"""The models and samples that a command line names, opened and checked."""

import argparse
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

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
        return self._opened_samples(options, options.data)

    def task_samples(self, options: argparse.Namespace) -> "list[Samples]":
        """Open samples of each source's own task, one --data for each in their order.

        A single --data is that of all, and sources that are given the same path have
        the same samples. Raises ValueError for any other number of them and as
        `samples` does.
        """
        paths, q = options.data, len(self.sources)
        if len(paths) not in (1, q):
            raise ValueError(
                f"--data must be given once, or once for each of the {q} sources in "
                f"their order, got {len(paths)}"
            )
        opened = {
            place: self._opened_samples(options, [path])
            for place, path in {path.resolve(): path for path in paths}.items()
        }
        each = [opened[path.resolve()] for path in paths]
        return each if len(each) == q else each * q

    def _opened_samples(
        self, options: argparse.Namespace, paths: Sequence[Path]
    ) -> "Samples":
        directory = options.processor or self.base.directory
        if directory is None:
            raise ValueError("--processor must say which tokenizer or processor to use")
        calibration = open_calibration(
            paths,
            checkpoint=directory,
            seed=options.seed,
            plain_images=options.plain_images,
        )
        model = empty_model(configured(self.base, self.sources))
        _check_takes(model, calibration.modality, self.base.source)
        return Samples(
            calibration,
            options.samples,
            options.batch,
            DTYPES.get(options.dtype),
            words=_words(model),
        )


@dataclass(frozen=True)
class Samples:
    """Batches of the same samples, as often as they are needed.

    `words` is how many the model knows, None where it takes none; `skipped` has a
    line on every sample so far that could not be read.
    """

    calibration: Calibration
    count: int
    batch: int
    dtype: torch.dtype | None
    words: int | None = None
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
                _check_known(batch, self.words)
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
    # Those that, as T5 does, make the decoder's inputs from labels, which are not here.
    config = getattr(model, "config", None)
    two_parts = getattr(config, "is_encoder_decoder", False)
    if two_parts and hasattr(model, "_shift_right"):
        raise ValueError(
            f"the model of {source} is an encoder with a decoder, which needs inputs "
            "of its own: give the encoder alone, or use the library with batches that "
            "have decoder_input_ids"
        )


def _words(model: nn.Module) -> int | None:
    """How many words a model of transformers has embeddings for, None for none."""
    try:
        words = getattr(model, "get_input_embeddings", lambda: None)()
    except NotImplementedError:  # a pair of towers, as CLIP, does not say
        return None
    return words.num_embeddings if isinstance(words, nn.Embedding) else None


def _check_known(batch: Mapping[str, Tensor], words: int | None) -> None:
    """Raise ValueError where a batch has words that a model has not."""
    given = batch.get("input_ids")
    if given is not None and words is not None and int(given.max()) >= words:
        raise ValueError(
            f"the tokenizer gives the word {int(given.max())}, but the model knows "
            f"{words} words: --processor must name the model's own tokenizer"
        )

"""One cell of a sweep: its parameters, its random stream and its estimate."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from time import perf_counter
from typing import Any

import numpy as np

from simulate.activations import Activation
from simulate.estimators import Estimate, estimate_mloss
from simulate.settings import Settings

FIRST = 2**14  # samples of the first round, where the largest round allows more


@dataclass(frozen=True)
class Cell:
    """The parameters of one expected M-Loss, with equal weights."""

    activation: str
    k: float
    sigma: float
    q: int

    def generator(self, seed: str) -> np.random.Generator:
        """The cell's own stream, which no other cell of the sweep has a say in."""
        named = f"{seed} {self.activation} {self.k.hex()} {self.sigma.hex()} {self.q}"
        return np.random.default_rng(int.from_bytes(sha256(named.encode()).digest()))


@dataclass(frozen=True)
class Row:
    """A finished cell.

    `value` and `stderr` come from `n` samples, with `degrees` of freedom; `drawn`
    counts those of all rounds. `reached` says whether the relative error is the one
    asked for, and is None where none was. `seconds` is the time taken.
    """

    activation: str
    k: float
    sigma: float
    q: int
    value: float
    stderr: float
    degrees: int
    n: int
    drawn: int
    reached: bool | None
    seconds: float
    finished: datetime

    @property
    def cell(self) -> Cell:
        """What was estimated."""
        return Cell(self.activation, self.k, self.sigma, self.q)

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "Row":
        """The inverse of `as_json`."""
        return cls(**entry | {"finished": datetime.fromisoformat(entry["finished"])})

    def as_json(self) -> dict[str, Any]:
        """The row in types that JSON has; every float comes back as it was."""
        return vars(self) | {"finished": self.finished.isoformat()}


def finished_cell(cell: Cell, f: str | Activation, settings: Settings) -> Row:
    """Estimate one cell to the relative error rtol, with at most n samples a round.

    Rounds are independent and double. The first to reach rtol only says how many
    samples it takes: what is reported is the next, drawn afresh with twice as many,
    so that no luck in an error estimate chooses the number that is shown. Should that
    one miss (about one in a thousand), the doubling goes on. A round of n samples is
    the last. Without rtol there is one round.
    """
    start = perf_counter()
    drawn, sized = 0, False
    for estimate in _rounds(cell, f, settings):
        drawn += estimate.n
        reached = _reached(estimate, settings.rtol)
        if reached and sized:
            break
        sized = sized or bool(reached)
    return Row(
        **vars(cell),
        value=estimate.value,
        stderr=estimate.stderr,
        degrees=estimate.degrees,
        n=estimate.n,
        drawn=drawn,
        reached=reached,
        seconds=perf_counter() - start,
        finished=datetime.now(UTC),
    )


def round_sizes(n: int) -> list[int]:
    """Sizes that double up to n exactly, from no less than `FIRST` where n allows."""
    doublings = max(n // FIRST, 1).bit_length() - 1
    return [n >> halvings for halvings in range(doublings, -1, -1)]


def _rounds(cell: Cell, f: str | Activation, settings: Settings) -> Iterator[Estimate]:
    rng = cell.generator(settings.seed)
    for size in [settings.n] if settings.rtol is None else round_sizes(settings.n):
        try:
            yield estimate_mloss(
                f, cell.k, cell.sigma, q=cell.q, n=size, rng=rng, method=settings.method
            )
        except ValueError as error:
            # A small round may meet no loss at all; the largest says what is wrong.
            if size == settings.n:
                raise ValueError(f"{error} (in {cell})") from error


def _reached(estimate: Estimate, rtol: float | None) -> bool | None:
    return None if rtol is None else estimate.stderr <= rtol * estimate.value

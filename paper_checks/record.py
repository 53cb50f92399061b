"""What a check of one claim returns: a finding, its evidence and a verdict."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

Number = float | int | list[float] | list[int]
Check = Callable[..., "Finding"]


class Verdict(StrEnum):
    """What the evidence says of a claim."""

    CONFIRMED = "confirmed"
    """Right as stated, within the stated uncertainty."""
    CORRECTED = "corrected"
    """Right in kind and wrong in a detail, which is put right."""
    REFUTED = "refuted"
    """Not true as stated; what is true instead is said."""
    NOT_CHECKABLE = "not checkable here"
    """Undecided by what this command can compute; the reason is said."""


class How(StrEnum):
    """The kinds of evidence a finding can rest on."""

    SYMBOLIC = "symbolic"
    CERTIFIED = "certified"
    SIMULATED = "simulated"
    MEASURED = "measured"
    ARITHMETIC = "arithmetic"


@dataclass(frozen=True)
class Finding:
    """The outcome of a check.

    `found` and `uncertainty` are for a reader, `numbers` for a machine. `truth`
    says in one plain sentence what holds instead, and is required of a corrected or
    refuted claim; `reason` is required of one that is not checkable here.
    """

    verdict: Verdict
    found: str
    uncertainty: str
    how: tuple[How, ...] = ()
    truth: str = ""
    reason: str = ""
    numbers: Mapping[str, Number] = field(default_factory=dict)

    def __post_init__(self) -> None:
        judged_wrong = self.verdict in (Verdict.CORRECTED, Verdict.REFUTED)
        if judged_wrong and not self.truth:
            raise ValueError(f"a {self.verdict} claim needs truth: what holds instead")
        undecided = self.verdict == Verdict.NOT_CHECKABLE
        if undecided and not self.reason:
            raise ValueError("a claim not checkable here needs a reason")
        if not undecided and not self.how:
            raise ValueError(f"a {self.verdict} claim needs how: its kinds of evidence")

    @classmethod
    def not_checkable(cls, reason: str, *, found: str = "-") -> "Finding":
        """Make a finding that leaves the claim undecided, for the given reason."""
        return cls(Verdict.NOT_CHECKABLE, found, "-", reason=reason)


@dataclass(frozen=True)
class Claim:
    """One statement of the paper and the function that checks it.

    `recorded` is the verdict of a healthy run. `seeded` says that the check takes
    a `seed`. Raises ValueError for an id that is not lower-case words and hyphens.
    """

    id: str
    where: str
    states: str
    recorded: Verdict
    check: Check
    seeded: bool

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.id):
            raise ValueError(f"id must be lower-case words and hyphens, got {self.id}")

    def examine(self, *, seed: int) -> "Checked":
        """Run the check, with the seed if it draws random numbers.

        A proof that does not succeed leaves the claim undecided.
        """
        try:
            finding = self.check(seed=seed) if self.seeded else self.check()
        except ArithmeticError as error:
            finding = Finding.not_checkable(f"a proof failed: {error}")
        return Checked(self, finding)


@dataclass(frozen=True)
class Checked:
    """A claim and what was found of it."""

    claim: Claim
    finding: Finding

    @property
    def as_recorded(self) -> bool:
        """Whether the verdict is the one a healthy run gives."""
        return self.finding.verdict == self.claim.recorded

    def as_json(self) -> dict[str, object]:
        """Return the record of this claim in `claims.json`."""
        return {
            "id": self.claim.id,
            "where": self.claim.where,
            "states": self.claim.states,
            "found": self.finding.found,
            "uncertainty": self.finding.uncertainty,
            "how": [str(how) for how in self.finding.how],
            "verdict": str(self.finding.verdict),
            "recorded": str(self.claim.recorded),
            "truth": self.finding.truth,
            "reason": self.finding.reason,
            "numbers": dict(self.finding.numbers),
        }

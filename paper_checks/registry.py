"""The register of claims, in the order the report lists them."""

from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from inspect import signature

from paper_checks.record import Check, Claim, Verdict


class UnknownClaimError(ValueError):
    """An id that no claim has."""


class Registry:
    """Claims by id, in order of registration."""

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}

    def __iter__(self) -> Iterator[Claim]:
        return iter(self._claims.values())

    def __len__(self) -> int:
        return len(self._claims)

    def claim(
        self, name: str, *, where: str, states: str, recorded: str
    ) -> Callable[[Check], Check]:
        """Register the decorated check, which takes `seed` or nothing, as `name`.

        Raises ValueError for an id already taken, an id that is not lower-case
        words and hyphens, or a `recorded` that is no verdict.
        """
        if name in self._claims:
            raise ValueError(f"the claim id {name!r} is taken")

        def register(check: Check) -> Check:
            self._claims[name] = Claim(
                id=name,
                where=where,
                states=states,
                recorded=Verdict(recorded),
                check=check,
                seeded="seed" in signature(check).parameters,
            )
            return check

        return register

    def select(self, ids: Sequence[str] = ()) -> tuple[Claim, ...]:
        """Return the claims with these ids in register order; all of them for no ids.

        Raises UnknownClaimError naming an id that no claim has and the nearest ones.
        """
        for name in ids:
            if name not in self._claims:
                raise UnknownClaimError(f"no claim {name!r}; {self._suggest(name)}")
        return tuple(claim for claim in self if not ids or claim.id in ids)

    def _suggest(self, name: str) -> str:
        near = get_close_matches(name, self._claims, n=3, cutoff=0.4)
        if near:
            return f"did you mean {' or '.join(near)}?"
        return f"the claims are {', '.join(self._claims)}"


CLAIMS = Registry()
claim = CLAIMS.claim

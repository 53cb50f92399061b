"""Merges to compare: methods with their options, and grids of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from types import MappingProxyType
from typing import Any

from mloss.merging import METHODS

# Small grids around what the papers use. Scales are those of our methods, which weigh
# sources by 1/q: task arithmetic's lambda of 0.3 on the sum of 8 (Ilharco et al. 2023)
# is scale 2.4 here. TIES: densities 0.1 to 0.3 and lambda from 0.8 to 3 (Yadav et al.
# 2023, appendix). DARE: drop rates up to 0.9 (Yu et al. 2024). M-TIES: densities 0.2 to
# 0.8 with spread 0.1, the settings that the reference implementation's logs name.
GRIDS: Mapping[str, Mapping[str, tuple[Any, ...]]] = MappingProxyType(
    {
        "average": {},
        "task_arithmetic": {"scale": (1.5, 2.0, 3.0)},
        "ties": {"density": (0.1, 0.2, 0.3), "scale": (1.0, 2.0)},
        "dare": {"density": (0.1, 0.2, 0.5)},
        "m_ties": {"density": (0.2, 0.4, 0.6, 0.8), "spread": (0.1,)},
    }
)
# What options may be, so that a name says all of them.
_PLAIN = (str, int, float, tuple)


@dataclass(frozen=True)
class Candidate:
    """A method of `METHODS` with some of its options; the others have their defaults.

    Raises ValueError for a method or an option that there is not, and for values that
    are neither numbers nor text.
    """

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            known = ", ".join(sorted(METHODS))
            raise ValueError(f"method {self.method!r} is not one of: {known}")
        known_options = METHODS[self.method].options
        for name, value in self.options.items():
            if name not in known_options:
                has = ", ".join(known_options) or "none"
                raise ValueError(f"{self.method} has no option {name}; it has {has}")
            if not (value is None or isinstance(value, _PLAIN)):
                raise ValueError(
                    f"{self.method} is compared with numbers and text for options, "
                    f"got a {type(value).__name__} for {name}"
                )

    @property
    def name(self) -> str:
        """As it is spelt, as in "ties:density=0.2:scale=1.0"."""
        options = [f"{name}={_spelt(value)}" for name, value in self.options.items()]
        return ":".join([self.method, *options])


def _spelt(value: Any) -> str:
    """A value as text, in quotes where it would be taken for several."""
    parts = value if isinstance(value, tuple) else (value,)
    text = ",".join(map(str, parts))
    return f'"{text}"' if set(text) & set(",:/") else text


def grid(method: str, **values: Iterable[Any]) -> tuple[Candidate, ...]:
    """A candidate for every combination of the options' values, in their order."""
    return tuple(
        Candidate(method, dict(zip(values, chosen, strict=True)))
        for chosen in product(*values.values())
    )


def default_grid(method: str) -> tuple[Candidate, ...]:
    """The grid of `GRIDS`, or the method as it comes where that has none."""
    return grid(method, **GRIDS.get(method, {}))


def default_candidates() -> tuple[Candidate, ...]:
    """The default grids of all methods that have one: those of the paper's tables."""
    return tuple(candidate for method in GRIDS for candidate in default_grid(method))

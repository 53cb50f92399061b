"""Candidates for a comparison from the text of an option."""

import re

from mloss.commands.method_options import parsed_options
from mloss.compare import Candidate, default_grid, grid
from mloss.merging import METHODS

SPELLING = (
    "METHOD, METHOD:OPTION=VALUE or METHOD:OPTION=VALUE/VALUE, a value with one of "
    ',:/ in it in double quotes, as in m_ties:layers="0,1"'
)


def spelt(text: str) -> tuple[Candidate, ...]:
    """Candidates from text such as "average,ties:density=0.1/0.2:scale=1,m_ties".

    Several values of an option make a grid; a method without options gets its default
    grid, and "all" stands for every method there is. A value in double quotes keeps
    its commas, colons and slashes. Each candidate comes once. Raises ValueError, saying
    what is wrong where, for anything else.
    """
    if text.count('"') % 2:
        raise ValueError(f"a quote is not closed in {text!r}")
    named = [part for one in _split(text, ",") for part in _methods(one.strip())]
    found = [candidate for part in named for candidate in _grid_of(part)]
    return tuple({candidate.name: candidate for candidate in found}.values())


def _split(text: str, mark: str) -> list[str]:
    """Parts of a text between marks that an even number of quotes follows."""
    return re.split(rf'{mark}(?=[^"]*(?:"[^"]*"[^"]*)*$)', text)


def _methods(part: str) -> list[str]:
    return sorted(METHODS) if part == "all" else [part]


def _grid_of(part: str) -> tuple[Candidate, ...]:
    method, *settings = _split(part, ":")
    if not method:
        raise ValueError(f"a method has no name in {part!r}: spell it {SPELLING}")
    method = Candidate(method).method
    if not settings:
        return default_grid(method)
    values = {}
    for setting in settings:
        name, equals, texts = setting.partition("=")
        if not equals or name in values:
            raise ValueError(f"{part!r} must be spelt {SPELLING}")
        each = [one.replace('"', "") for one in _split(texts, "/")]
        values[name] = [parsed_options(method, {name: one})[name] for one in each]
    return grid(method, **values)

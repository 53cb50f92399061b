"""The merge that another method starts from and corrects."""

from collections.abc import Mapping, Sequence
from typing import Any

from mloss.merging.registry import METHODS
from mloss.states import State
from mloss.weights import Weights


def underlying(
    of: str,
    base: State,
    sources: Sequence[State],
    *,
    weights: Weights,
    options: Mapping[str, Any] | None,
    **given: object,
) -> State:
    """The lazy merge by the method `of`, with its own options.

    `given` is what the correcting method has of model and data. Raises ValueError for
    an unknown method, one that needs something else or draws, and what is no option of
    it; and what that method raises.
    """
    if of not in METHODS:
        raise ValueError(f"of={of!r} is not one of: {', '.join(METHODS)}")
    method = METHODS[of]
    if missing := sorted(method.needs - given.keys()):
        raise ValueError(f"of={of!r} needs {missing[0]}, which is not at hand here")
    if method.draws:
        raise ValueError(f"of={of!r} takes random numbers, which are not at hand here")
    own = options or {}
    if unknown := sorted(own.keys() - method.options.keys()):
        raise ValueError(
            f"of_options holds {unknown[0]!r}, which is no option of {of!r}: "
            f"{', '.join(method.options) or 'it has none'}"
        )
    needed = {name: given[name] for name in method.needs}
    return method.lazily(base, sources, weights=weights, **needed, **own)

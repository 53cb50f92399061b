"""The type checker of the test run: jaxtyping's shapes, and nothing else.

Beartype on every annotation would answer a caller's wrong type before our own checks
can, whose messages are tested.
"""

from collections.abc import Callable
from typing import Any

from beartype import beartype


def shapes_only(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check the annotations of a function that state a shape."""
    function.__annotations__ = {
        name: hint
        for name, hint in function.__annotations__.items()
        if "jaxtyping" in repr(hint)
    }
    checked: Callable[..., Any] = beartype(function)
    return checked

"""The options that methods have of their own, as a command line gives them."""

import argparse
import inspect
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from mloss.merging import METHODS
from mloss.merging.pruning.node_rates import NodeRates

# Those of several methods have an option of their own, too.
_COMMON = ("density", "spread", "scale", "combine")


def add_method_options(parser: argparse.ArgumentParser) -> None:
    """Add --density, --spread, --scale, --combine and --option."""
    parser.add_argument(
        "--density",
        metavar="K",
        help="fraction of a task vector that is kept (the paper's k)",
    )
    parser.add_argument(
        "--spread",
        metavar="E",
        help="by how much the keep rates of nodes differ (the paper's e)",
    )
    parser.add_argument(
        "--scale", metavar="S", help="what the merged step is multiplied by"
    )
    parser.add_argument(
        "--combine",
        choices=("disjoint_mean", "weighted_sum"),
        help="how entries that agree in sign are combined",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        type=_pair,
        metavar="NAME=VALUE",
        help="any other option of the method; again for several (`mloss methods` lists "
        "them)",
    )


def texts_of_options(options: argparse.Namespace) -> dict[str, str]:
    """What was given of a method's own options. Raises ValueError for one twice."""
    common = {name: getattr(options, name) for name in _COMMON}
    given = [(name, text) for name, text in common.items() if text is not None]
    texts: dict[str, str] = {}
    for name, text in (*given, *options.option):
        if name in texts:
            raise ValueError(f"the option {name} is given twice")
        texts[name] = text
    return texts


def parsed_options(method: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """The values of a method's options. Raises ValueError for those it has not."""
    known = options_in_text(method)
    if unknown := sorted(set(texts) - set(known)):
        raise ValueError(
            f"{method} has no option {unknown[0]}; it has {', '.join(known) or 'none'}"
        )
    kinds = _kinds(method)
    return {name: _parsed(name, text, kinds[name]) for name, text in texts.items()}


def options_in_text(method: str) -> dict[str, Any]:
    """The options of a method that a text can give, with their defaults."""
    kinds = _kinds(method)
    return {
        name: default
        for name, default in METHODS[method].options.items()
        if any(_has_text(kind) for kind in kinds[name] if kind is not NoneType)
    }


def files_of_options(method: str, texts: Mapping[str, str]) -> dict[str, Path]:
    """The files that options name, by the options' names."""
    kinds = _kinds(method)
    return {
        name: Path(text)
        for name, text in texts.items()
        if NodeRates in kinds.get(name, ()) and text.lower() != "none"
    }


def _kinds(method: str) -> dict[str, tuple[Any, ...]]:
    """The kinds of value that a method's function states for each argument."""
    parameters = inspect.signature(METHODS[method].lazily).parameters
    return {name: _alternatives(each.annotation) for name, each in parameters.items()}


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    union = get_origin(annotation) in (Union, UnionType)
    return get_args(annotation) if union else (annotation,)


def _has_text(kind: Any) -> bool:
    """Whether some text says what a value of this kind is."""
    known = kind in (int, float, str, bool, NoneType, NodeRates)
    return known or get_origin(kind) is Literal or _each(kind) is not None


def _each(kind: Any) -> Any:
    """What the values of a kind hold in a row, where a text can give that."""
    if get_origin(kind) not in (Collection, Sequence, tuple):
        return None
    return next((part for part in get_args(kind) if part in (int, float, str)), None)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, got {text!r}")
    return name.replace("-", "_"), value


def _parsed(name: str, text: str, kinds: tuple[Any, ...]) -> Any:
    """A value of the first of the kinds that the text says one of."""
    for kind in kinds:
        try:
            return _as_kind(text, kind)
        except (ValueError, KeyError):
            continue
    if NodeRates in kinds and Path(text).is_file():
        return NodeRates.load(Path(text))
    known = [kind for kind in kinds if _has_text(kind)]
    wanted = " or ".join(dict.fromkeys(map(_words, known)))
    raise ValueError(f"the option {name} must be {wanted}, got {text!r}")


def _as_kind(text: str, kind: Any) -> Any:
    """The value, or ValueError or KeyError where the text is none of this kind."""
    if get_origin(kind) is Literal:
        return {str(value): value for value in get_args(kind)}[text]
    if kind is NoneType:
        return {"none": None}[text.lower()]
    if kind is bool:
        return {"true": True, "false": False}[text.lower()]
    if kind in (int, float, str):
        return kind(text)
    if (inner := _each(kind)) is not None:
        return tuple(inner(part) for part in text.split(","))
    raise ValueError(f"no text says what a {kind} is")


def _words(kind: Any) -> str:
    """What a person would call the values of a kind."""
    if get_origin(kind) is Literal:
        return ", ".join(map(str, get_args(kind)))
    named = {int: "a whole number", float: "a number", bool: "true or false"}
    named |= {NoneType: "none", str: "text", NodeRates: "a file of keep rates"}
    return named.get(kind, "values with commas between")

"""What lies beyond activations: attention, normalisations, and block to block."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from torch import Tensor

from mloss.beyond import AttentionScore, NormScore, StreamGap
from mloss.report.layer_names import layer_names
from mloss.report.numbers import percent, with_error


@dataclass(frozen=True)
class Beyond:
    """The three measures of `mloss.beyond` on the same models and samples."""

    attention: AttentionScore
    norms: NormScore
    stream: StreamGap


@dataclass(frozen=True)
class PlainTable:
    """A table of texts: the first column names, the others hold numbers."""

    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(beyond: Beyond) -> list[PlainTable]:
    """The tables that have rows, for a terminal or a page."""
    found = (_attention(beyond.attention), _norms(beyond.norms), _blocks(beyond.stream))
    return [table for table in found if table.rows]


def as_values(beyond: Beyond) -> object:
    """The three measures as nested values; tensors become lists."""
    return {name: _values(part) for name, part in asdict(beyond).items()}


def _attention(score: AttentionScore) -> PlainTable:
    names = _short(module.layer_name for module in score.modules)
    rows = tuple(
        (
            names[one.layer_name],
            str(one.heads),
            with_error(one.layer, one.layer_stderr),
            percent(one.layer_normalized),
            _part(one.layer_pattern, one.layer),
            _part(one.layer_product, one.layer),
            str(int(one.head.argmax())),
        )
        for one in score.modules
    )
    return PlainTable(
        "Attention M-Loss: heads as nodes, averaged queries, keys and values",
        "Pattern is what averaging queries and keys does, product the covariance of "
        "pattern and values; they add up as vectors, their lengths do not."
        + _left_out(score.not_covered),
        ("attention", "heads", "M-Loss", "of output", "pattern", "product", "worst"),
        rows,
    )


def _norms(score: NormScore) -> PlainTable:
    names = _short(norm.layer_name for norm in score.norms)
    rows = tuple(
        (
            names[one.layer_name],
            with_error(one.layer, one.layer_stderr),
            percent(one.layer_normalized),
            _part(one.layer_bend, one.layer),
            _part(one.layer_product, one.layer),
        )
        for one in score.norms
    )
    return PlainTable(
        "Normalisations, every source on its own input",
        "On one shared input a normalisation loses nothing; so these are not to be "
        "compared in size with the M-Loss of activations."
        + _left_out(score.not_covered),
        ("normalisation", "M-Loss", "of output", "bend", "product"),
        rows,
    )


def _blocks(stream: StreamGap) -> PlainTable:
    names = _short(block.block_name for block in stream.blocks)
    rows = tuple(
        (
            names[one.block_name],
            with_error(one.gap, one.gap_stderr),
            percent(one.relative),
            _signed(one.carried_share),
            _signed(one.within_share),
            _signed(one.cross_share),
        )
        for one in stream.blocks
    )
    return PlainTable(
        "Gap of the hidden states behind each block",
        "Carried is the gap that came in, within what the block loses on one shared "
        "input (M-Loss, attention and all), cross the rest: unlike inputs meeting "
        "unlike parameters. The three shares add up to the gap.",
        ("block", "gap", "of ensemble", "carried", "within", "cross"),
        rows,
    )


def _short(names: Iterable[str]) -> Mapping[str, str]:
    found = list(names)
    return layer_names(found).short if found else {}


def _part(part: float, whole: float) -> str:
    return percent(part / whole if whole > 0 else 0.0)


def _signed(share: float) -> str:
    return f"-{percent(-share)}" if share < 0 else percent(share)


def _left_out(not_covered: Mapping[str, str]) -> str:
    if not not_covered:
        return ""
    listed = "; ".join(f"{name} ({why})" for name, why in not_covered.items())
    return f" Not covered: {listed}."


def _values(value: object) -> object:
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {name: _values(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_values(part) for part in value]
    return value

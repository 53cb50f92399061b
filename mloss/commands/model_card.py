"""README.md of a merged checkpoint: what it is made from, how, and how good it is."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mloss.checkpoints.hub import is_hub_id
from mloss.gap import Gap
from mloss.merging import METHODS
from mloss.report.numbers import percent, with_error


def model_card(
    *,
    name: str,
    base: str,
    sources: Sequence[str],
    weights: Sequence[float],
    method: str,
    options: Mapping[str, object],
    gap: Gap | None,
    mloss: Mapping[str, float],
    library: str | None,
) -> str:
    """The card in Markdown, with the front matter that the hub reads.

    Models of the hub are linked as what it was made from; local paths are named in the
    text by their last part.
    """
    paragraphs = [
        _front_matter([base, *sources], library),
        f"# {name}",
        f"A merge by `{method}` ({METHODS[method].source}), made with mloss.",
        _sources(base, sources, weights),
    ]
    if options:
        paragraphs.append(_table(("option", "value"), options))
    if mloss:
        means = {layer: f"{mean:.3g}" for layer, mean in mloss.items()}
        paragraphs.append(_table(("layer", "mean node M-Loss"), means))
    if gap is not None:
        paragraphs.append(
            f"Its outputs are {percent(gap.relative)} of the ensemble's size away from "
            f"those of the sources' ensemble: {with_error(gap.mean, gap.stderr)} in "
            f"the mean over {gap.samples} unlabelled samples."
        )
    paragraphs.append("`mloss.json` records everything that it was made from.")
    return "\n\n".join(paragraphs) + "\n"


def _table(head: tuple[str, str], rows: Mapping[str, object]) -> str:
    lines = (f"| {key} | {value} |" for key, value in rows.items())
    return "\n".join((f"| {head[0]} | {head[1]} |", "| --- | --- |", *lines))


def _front_matter(models: Sequence[str], library: str | None) -> str:
    on_hub = [model for model in models if _is_on_hub(model)]
    lines = ["---"]
    if on_hub:
        # JSON's strings are YAML's too.
        lines += ["base_model:", *(f"- {json.dumps(model)}" for model in on_hub)]
        lines += ["base_model_relation: merge"]
    if library:
        lines += [f"library_name: {library}"]
    return "\n".join([*lines, "tags:", "- merge", "- mloss", "---"])


def _sources(base: str, sources: Sequence[str], weights: Sequence[float]) -> str:
    rows = [
        f"| {_shown(source)} | {weight:.4g} |"
        for source, weight in zip(sources, weights, strict=True)
    ]
    head = (f"Base: {_shown(base)}", "", "| source | weight |", "| --- | --- |")
    return "\n".join((*head, *rows))


def _is_on_hub(model: str) -> bool:
    return is_hub_id(model) and not Path(model).expanduser().exists()


def _shown(model: str) -> str:
    """A model of the hub by its id, a local one by the last part of its path."""
    name = model if _is_on_hub(model) else Path(model).name or model
    return name.replace("|", "\\|")

"""The score of every node as a Parquet table."""

import json
from collections.abc import Callable
from io import BytesIO
from operator import attrgetter
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from mloss.agreement import PREDICTIONS
from mloss.report.record import Provenance, without_infinities
from mloss.score import QUANTILES, Score, SiteScore
from mloss.whole_file import write_whole

# The entry of the file's metadata that holds samples and provenance, as JSON.
METADATA = "mloss.score"

_Column: TypeAlias = Callable[[SiteScore], Tensor | None]


def write_nodes(score: Score, path: Path, *, provenance: Provenance) -> None:
    """Write one row a node, whole or not at all.

    Columns: layer, node, mloss and its stderr over samples, quantiles over samples,
    normalized (Eq. 7) and each prediction; null where there is no prediction and for
    the standard error of one sample. Raises OSError where the file cannot be written.
    """
    buffer = BytesIO()
    pq.write_table(node_table(score, provenance=provenance), buffer)
    write_whole(path, buffer.getvalue())


def node_table(score: Score, *, provenance: Provenance) -> pa.Table:
    """The table of `write_nodes`; its metadata has the samples and the provenance."""
    names = [site.layer_name for site in score.sites]
    counts = [len(site.node) for site in score.sites]
    layer = pa.DictionaryArray.from_arrays(
        np.repeat(np.arange(len(names)), counts), names
    )
    node = np.concatenate([np.arange(count) for count in counts])
    numbers = {name: _column(score, of) for name, of in _columns().items()}
    origin = without_infinities({"samples": score.samples, **provenance})
    table = pa.table({"layer": layer, "node": node, **numbers})
    return table.replace_schema_metadata({METADATA: json.dumps(origin)})


def _columns() -> dict[str, _Column]:
    predictions = {
        f"prediction_{name.replace('-', '_')}": attrgetter(field)
        for name, field in PREDICTIONS.items()
    }
    quantiles = {
        f"q{100 * level:02.0f}": _quantile(place)
        for place, level in enumerate(QUANTILES)
    }
    return {
        "mloss": attrgetter("node"),
        "stderr": attrgetter("node_stderr"),
        **quantiles,
        "normalized": attrgetter("node_normalized"),
        **predictions,
    }


def _quantile(place: int) -> _Column:
    return lambda site: site.node_quantiles[place]


def _column(score: Score, of: _Column) -> pa.Array:
    """Values over all nodes, null where there is none or it is not finite."""
    parts = []
    for site in score.sites:
        found = of(site)
        missing = np.full(len(site.node), np.nan)
        parts.append(missing if found is None else found.cpu().double().numpy())
    values = np.concatenate(parts)
    return pa.array(values, mask=~np.isfinite(values))

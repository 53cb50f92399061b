"""Agreement of the predictions with the measurement as rows of a table."""

from collections.abc import Sequence
from dataclasses import dataclass

from mloss.agreement import PREDICTIONS, Agreement


@dataclass(frozen=True)
class AgreementRow:
    """One layer, or all of them (None), with each prediction of `PREDICTIONS`."""

    layer: str | None
    cells: tuple[Agreement | None, ...]


def agreement_rows(agreements: Sequence[Agreement]) -> tuple[AgreementRow, ...]:
    """Rows of the layers that have a prediction, in forward order, then that of all."""
    found = {(a.layer_name, a.prediction): a for a in agreements}
    layers = dict.fromkeys(a.layer_name for a in agreements)
    return tuple(
        AgreementRow(layer, tuple(found.get((layer, name)) for name in PREDICTIONS))
        for layer in sorted(layers, key=lambda layer: layer is None)
    )

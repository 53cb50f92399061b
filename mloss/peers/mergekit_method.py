"""M-TIES for mergekit, by keep rates `mloss score` wrote; importing registers it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mergekit.merge_methods import (
    BasePolicy,
    InputContract,
    PerNonBase,
    TensorGroup,
    merge_method,
    register,
)

from mloss.merging import ties
from mloss.merging.pruning.elect import Combine
from mloss.merging.pruning.node_rates import NodeRates


class RatesInUse:
    """Keep rates of a file, and which of their parameters no tensor has come for."""

    def __init__(self, path: str) -> None:
        self._rates = NodeRates.load(Path(path))
        self.unmet = set(self._rates.layer_of)

    def of(self, name: str, *, axes: int) -> NodeRates | None:
        """The rates of a tensor's rows; None where it has none, or has no rows."""
        self.unmet.discard(name)
        layer = self._rates.layer_of.get(name)
        if layer is None or axes < 2:
            return None
        return NodeRates({layer: (name,)}, {layer: self._rates.rates[layer]})


_IN_USE: dict[str, RatesInUse] = {}


@contextmanager
def every_rate_met() -> Iterator[None]:
    """Raise ValueError at the end where rates were of no tensor that was merged."""
    _IN_USE.clear()
    yield
    for path, rates in _IN_USE.items():
        for name in sorted(rates.unmet):
            raise ValueError(
                f"{path} has rates of {name!r}, and mergekit merged nothing of that "
                "name: what it wrote is not M-TIES"
            )


@merge_method(  # type: ignore[untyped-decorator]  # mergekit has no types
    name="m_ties",
    pretty_name="M-TIES",
    contract=InputContract(base=BasePolicy.REQUIRED, min_non_base=1),
)
def m_ties(
    group: TensorGroup,
    rates: str,
    weight: PerNonBase[float] = 1.0,
    density: float = 0.2,
    scale: float = 1.0,
    combine: Combine = "weighted_sum",
) -> torch.Tensor:
    """Trim rows to the rates in a file and all else by TIES at `density`, and merge.

    `mloss.merging.ties` with `rates`, but for one thing: mergekit shows one tensor at
    a time, so that a node's row is trimmed alone, and its bias as any other tensor.
    The authors' program does so too (`bias` False of `mloss.merging.m_ties`). `weight`
    is relative: the weights are divided by their sum. Raises ValueError as `ties` does,
    and where the file holds no rates.
    """
    name, base = group.metadata.name, group.base.tensor
    if rates not in _IN_USE:
        _IN_USE[rates] = RatesInUse(rates)
    relative = torch.tensor(weight.values_for(group.non_base), dtype=torch.float64)
    merged = ties(
        {name: base},
        [{name: entry.tensor} for entry in group.non_base],
        weights=relative / relative.sum(),
        density=density,
        scale=scale,
        combine=combine,
        rates=_IN_USE[rates].of(name, axes=base.ndim),
    )
    return merged[name]


register(m_ties)

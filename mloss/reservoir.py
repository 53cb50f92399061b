"""A fixed-size random sample of what streams by, for quantiles and densities."""

import torch
from jaxtyping import Float
from torch import Tensor


class Reservoir:
    """The rows whose keys are the `size` smallest.

    With keys drawn independently and uniformly, these are `size` rows drawn from all
    without replacement. Everything is kept until there are more. The keys alone decide
    which rows stay, whatever blocks they come in.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._keys = torch.empty(0, dtype=torch.float64)
        self._rows: Tensor | None = None

    def add(
        self, rows: Float[Tensor, "row entry"], keys: Float[Tensor, " row"]
    ) -> None:
        """Let a block of rows go by."""
        rows = rows.float().cpu()
        if self._rows is not None:
            rows, keys = torch.cat([self._rows, rows]), torch.cat([self._keys, keys])
        kept = keys.argsort()[: self._size]
        self._rows, self._keys = rows[kept], keys[kept]

    def join(self, other: "Reservoir") -> None:
        """Let the rows that another one has kept go by."""
        if other._rows is not None:
            self.add(other._rows, other._keys)

    @property
    def rows(self) -> Float[Tensor, "row entry"]:
        """The sample in the order of the keys, in float64."""
        assert self._rows is not None
        return self._rows.double()

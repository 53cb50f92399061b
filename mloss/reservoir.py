"""A fixed-size random sample of what streams by, for quantiles and densities."""

import torch
from jaxtyping import Float
from torch import Tensor


class Reservoir:
    """Up to `size` rows drawn uniformly from all rows so far (Vitter's algorithm R).

    Everything is kept until there are more; which rows then stay is decided by `seed`
    and the number of rows seen.
    """

    def __init__(self, size: int, *, seed: int = 0) -> None:
        self._size, self._seen = size, 0
        self._generator = torch.Generator().manual_seed(seed)
        self._rows: list[Tensor] = []

    def add(self, rows: Float[Tensor, "row entry"]) -> None:
        """Let a block of rows go by."""
        for row in rows:
            self._seen += 1
            if len(self._rows) < self._size:
                self._rows.append(row.float().cpu())
                continue
            drawn = torch.randint(self._seen, (), generator=self._generator)
            if drawn < self._size:
                self._rows[int(drawn)] = row.float().cpu()

    @property
    def rows(self) -> Float[Tensor, "row entry"]:
        """The sample, in float64."""
        return torch.stack(self._rows).double()

"""Several means over samples at once, tokens averaged within a sample first."""

from collections.abc import Mapping

from torch import Tensor
from torch.linalg import vector_norm

from mloss.outputs import check_finite
from mloss.running_mean import RunningMean, token_means


class SampleMeans:
    """Means and standard errors by name, over samples that arrive in batches."""

    def __init__(self) -> None:
        self._means: dict[str, RunningMean] = {}

    def add(self, values: Mapping[str, Tensor], *, tokens: Tensor | None) -> None:
        """Count in values [sample, *token, node]; `tokens` says which are no padding.

        Raises ValueError for values that are not finite.
        """
        for name, value in values.items():
            of_samples = token_means(value, tokens)
            check_finite(of_samples)
            self._means.setdefault(name, RunningMean()).add(of_samples)

    def __getitem__(self, name: str) -> RunningMean:
        return self._means[name]

    def number(self, name: str) -> float:
        """Mean of values with one node."""
        return self._means[name].mean.item()


def length(values: Tensor) -> Tensor:
    """Euclidean norm over the last axis, which stays as one node."""
    norm: Tensor = vector_norm(values, dim=-1, keepdim=True)
    return norm

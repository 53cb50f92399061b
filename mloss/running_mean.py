"""Mean and standard error over samples that arrive in batches."""

import math
from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class RunningMean:
    """Mean over samples in float64, entry by entry, in memory flat in their number.

    Batches are joined by the update of Chan, Golub and LeVeque (1983), which does not
    cancel where the spread is small beside the mean.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = torch.zeros((), dtype=torch.float64)
        self._squares = torch.zeros((), dtype=torch.float64)

    def add(self, values: Float[Tensor, "sample *shape"]) -> None:
        """Count a batch of at least one sample in."""
        values = values.double()
        mean = values.mean(dim=0)
        self._join(len(values), mean, (values - mean).square().sum(dim=0))

    def join(self, other: "RunningMean") -> None:
        """Count in what another one has seen."""
        if other.count:
            self._join(other.count, other._mean, other._squares)

    def _join(self, new: int, mean: Tensor, squares: Tensor) -> None:
        before = self.count
        self.count += new
        # The first batch decides the shape and the device.
        shift = mean - self._mean if before else torch.zeros_like(mean)
        self._mean = mean - shift * (before / self.count)
        between = shift.square() * (before * new / self.count)
        self._squares = squares + between + (self._squares if before else 0)

    @property
    def mean(self) -> Float[Tensor, "*shape"]:
        """Mean of all samples so far."""
        return self._mean

    @property
    def stderr(self) -> Float[Tensor, "*shape"]:
        """Standard error of the mean; infinite for a single sample."""
        if self.count < 2:
            return torch.full_like(self._mean, math.inf)
        return (self._squares / (self.count - 1) / self.count).sqrt()


def joined(means: Iterable[RunningMean]) -> RunningMean:
    """Mean over the samples of all."""
    whole = RunningMean()
    for mean in means:
        whole.join(mean)
    return whole


def token_means(
    values: Float[Tensor, "sample *token node"],
    tokens: Bool[Tensor, "sample position"] | None = None,
) -> Float[Tensor, "sample node"]:
    """Mean over the tokens of each sample: samples are independent, tokens are not.

    `tokens` says where a padded sample has one; values without its axis, of a layer
    that sees a sample as a whole, are means already.
    """
    if tokens is None or values.shape[:-1] != tokens.shape:
        return values.reshape(len(values), -1, values.shape[-1]).mean(dim=1)
    real = tokens.to(values).unsqueeze(-1)
    return (values * real).sum(dim=1) / real.sum(dim=1)

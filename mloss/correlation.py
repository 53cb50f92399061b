"""How well a predictor orders and sizes a quantity measured on groups of models.

The pairs of N models are not N(N-1)/2 independent observations: those that share a
model move together. The intervals here resample models, and each pair counts as often
as the product of its models' counts; a pair of a model with its own copy is dropped.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]
Members = NDArray[np.int64]
# None where the rows drawn leave it undefined.
Statistic = Callable[[Array, Array], float | None]


@dataclass(frozen=True)
class Interval:
    """A statistic of all rows, with the quantiles of its bootstrap."""

    value: float
    low: float
    high: float


def rank_correlation(
    predicted: ArrayLike,
    measured: ArrayLike,
    *,
    members: ArrayLike,
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Spearman's rank correlation over rows, with a percentile interval over models.

    Row r of `predicted` and `measured` belongs to the distinct models `members[r]`,
    integers of shape [row, q]. A draw that leaves the correlation undefined, because
    all its rows are tied, is drawn again. Raises ValueError for arrays that do not fit
    together or are not finite, for a row that names a model twice, and where all rows
    are tied.
    """
    rows = _checked(predicted, measured, members)
    return _bootstrap(_spearman, *rows, rng=rng, draws=draws, level=level)


def rank_correlation_lead(
    predicted: ArrayLike,
    measured: ArrayLike,
    *,
    rival: ArrayLike,
    members: ArrayLike,
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Rank correlation of `predicted` minus that of its `rival`, over the same rows.

    Every draw resamples models once for both, so that what the two share cancels.
    Raises ValueError as `rank_correlation` does.
    """
    x, y, models = _checked(predicted, measured, members)
    other, _, _ = _checked(rival, measured, members)
    both = np.column_stack([x, other])
    return _bootstrap(
        _spearman_lead, both, y, models, rng=rng, draws=draws, level=level
    )


def size_ratio(
    predicted: ArrayLike,
    measured: ArrayLike,
    *,
    members: ArrayLike,
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Geometric mean over rows of predicted / measured, with the same resampling.

    Raises ValueError as `rank_correlation` does, and where a value is not positive.
    """
    x, y, models = _checked(predicted, measured, members)
    for name, values in (("predicted", x), ("measured", y)):
        if values.min() <= 0:
            raise ValueError(f"{name} must be positive, got {values.min()}")
    return _bootstrap(_geometric_ratio, x, y, models, rng=rng, draws=draws, level=level)


def _bootstrap(
    statistic: Statistic,
    x: Array,
    y: Array,
    members: Members,
    *,
    rng: np.random.Generator,
    draws: int,
    level: float,
) -> Interval:
    if draws < 1:
        raise ValueError(f"draws must be >= 1, got {draws}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    value = statistic(x, y)
    if value is None:
        raise ValueError("predicted or measured is the same in every row: no order")
    values: list[float] = []
    while len(values) < draws:
        repeated = np.repeat(np.arange(len(x)), _multiplicities(members, rng))
        drawn = statistic(x[repeated], y[repeated])
        if drawn is not None:
            values.append(drawn)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def _multiplicities(members: Members, rng: np.random.Generator) -> Members:
    """How often each row occurs when as many models are drawn with replacement."""
    models, positions = np.unique(members, return_inverse=True)
    picked = rng.integers(len(models), size=len(models))
    counts = np.bincount(picked, minlength=len(models))
    product: Members = counts[positions.reshape(members.shape)].prod(axis=1)
    return product


def _spearman(x: Array, y: Array) -> float | None:
    if not x.size or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def _spearman_lead(both: Array, y: Array) -> float | None:
    ours, rivals = _spearman(both[:, 0], y), _spearman(both[:, 1], y)
    return None if ours is None or rivals is None else ours - rivals


def _geometric_ratio(x: Array, y: Array) -> float | None:
    return float(np.exp(np.mean(np.log(x / y)))) if x.size else None


def _checked(
    predicted: ArrayLike, measured: ArrayLike, members: ArrayLike
) -> tuple[Array, Array, Members]:
    x, y = np.asarray(predicted, dtype=float), np.asarray(measured, dtype=float)
    models = np.asarray(members)
    if x.ndim != 1 or not x.size or x.shape != y.shape:
        raise ValueError(
            f"predicted and measured must be of one length, got {x.shape} and {y.shape}"
        )
    for name, values in (("predicted", x), ("measured", y)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite")
    if models.ndim != 2 or len(models) != len(x) or models.dtype.kind not in "iu":
        raise ValueError(
            f"members must be integers of shape [{len(x)}, q], "
            f"got {models.dtype} of shape {models.shape}"
        )
    if (np.diff(np.sort(models, axis=1), axis=1) == 0).any():
        raise ValueError("members names a model twice in one row")
    return x, y, models.astype(np.int64)

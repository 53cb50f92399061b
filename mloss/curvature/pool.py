"""A pool of models: the gap of every subset and weighting from the gaps of its pairs.

To second order in the models' differences, a merge with weights w has the output

    f(sum_i w_i theta_i) = sum_i w_i f(theta_i) + sum_{i<j} 4 w_i w_j c_ij,

c_ij the gap of the plain average of models i and j (docs/gap.md): N models and
N (N - 1) / 2 pairs foretell all 2^N merges.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from mloss.batches import Batch, Data, batches
from mloss.curvature.forward_check import check_forward_mode
from mloss.curvature.pair_gaps import PairGaps, PairMethod, Progress
from mloss.curvature.stored_arrays import Array, StoredArrays, digest
from mloss.inference import architecture, check_fits, evaluating
from mloss.merging.methods.average import average
from mloss.states import State, listed, matched
from mloss.weights import Weights, merging_weights


@dataclass(frozen=True)
class Pool:
    """Inner products of the models' outputs and the pairs' gaps, for each sample.

    `gram` [vector, vector, sample] has the `models` outputs first, less that of the
    first model, and then the pairs in the order of `itertools.combinations`. It takes
    about 2 N^4 bytes a sample: 90 MB for 24 models and 128 samples.
    """

    models: int
    gram: Float[np.ndarray, "vector vector sample"]

    @property
    def samples(self) -> int:
        """Number of inputs."""
        return int(self.gram.shape[-1])

    def predicted_gap(self, weights: Weights, *, ensemble: Weights = None) -> float:
        """Mean over samples of the distance between a merge and an ensemble's output.

        `weights` [models] are those of `merging_weights`, zero for who takes no part,
        and by default `ensemble` as well: then it is the gap of `mloss.gap`, exact for
        a plain average of two where the pairs were measured.
        """
        w = _weights(weights, self.models)
        alpha = w if ensemble is None else _weights(ensemble, self.models)
        amounts = self.amounts(w, alpha)
        used = np.flatnonzero(amounts)
        gram, amounts = self.gram[np.ix_(used, used)], amounts[used]
        squares = np.einsum("v,vws,w->s", amounts, gram, amounts)
        return float(np.sqrt(squares.clip(min=0)).mean())

    def amounts(
        self, weights: NDArray[np.float64], ensemble: NDArray[np.float64]
    ) -> Float[np.ndarray, " vector"]:
        """How much of each vector is in the difference of a merge and an ensemble."""
        first, second = np.triu_indices(self.models, k=1)
        pairs = 4 * weights[first] * weights[second]
        return np.concatenate([weights - ensemble, pairs])

    def among(self, members: Sequence[int]) -> "Pool":
        """The pool of these models alone, in this order.

        Raises ValueError for a model that is not there, or is named twice.
        """
        if len(set(members)) < len(members):
            raise ValueError(f"members names a model twice: {list(members)}")
        if unknown := sorted(set(members) - set(range(self.models))):
            raise ValueError(
                f"the pool has models 0 to {self.models - 1}, got {unknown[0]}"
            )
        chosen = np.array(members)
        first, second = np.triu_indices(len(chosen), k=1)
        pairs = self.pair_positions()[chosen[first], chosen[second]]
        vectors = np.concatenate([chosen, pairs])
        return Pool(len(chosen), self.gram[np.ix_(vectors, vectors)])

    def pair_positions(self) -> Int[np.ndarray, "model model"]:
        """Where in `gram` the pair of two models is, whichever comes first."""
        first, second = np.triu_indices(self.models, k=1)
        positions = np.zeros((self.models, self.models), dtype=int)
        positions[first, second] = self.models + np.arange(len(first))
        return positions + positions.T


def gap_pool(
    model: nn.Module,
    sources: Iterable[nn.Module | State],
    *,
    data: Data,
    directory: Path,
    method: PairMethod = "measured",
    centre: nn.Module | State | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Pool:
    """Run all sources and pairs of a pool, or go on where that was stopped.

    Each source takes one forward pass. So does each pair if its gap is "measured",
    which needs no derivative and holds the pair's higher orders; "forward" and
    "differences" take a second derivative at `centre`, by default the sources'
    average. `directory` keeps what is finished: models may be added later; other
    data, architectures, methods or centres are refused. `jobs` is joblib's number of
    processes, each with its own copies of the models.

    Raises ValueError for fewer than two models, models that do not match, outputs
    that are not finite, another method, a directory of another setting, and where
    `check_forward_mode` does.
    """
    if method not in ("measured", "forward", "differences"):
        raise ValueError(
            f"method must be 'measured', 'forward' or 'differences', got {method!r}"
        )
    sources = listed(sources)
    if len(sources) < 2:
        raise ValueError(f"a pool holds at least two models, got {len(sources)}")
    run_in = architecture(model, sources)
    start, states = matched(sources[0] if centre is None else centre, sources)
    check_fits(run_in, start)
    at = average(start, states) if centre is None else start
    if jobs != 1:
        # Other processes get tensors: files that are mapped here are not theirs.
        states, at = [dict(state) for state in states], dict(at)
    inputs = list(batches(data))
    if method == "forward":
        with evaluating(run_in):
            check_forward_mode(run_in, at, inputs[0])
    settings = {
        "architecture": _named(repr(run_in)),
        "data": _named(*(_digest(batch) for batch in inputs)),
        "method": method,
        "centre": "" if method == "measured" else digest(at),
    }
    stored = StoredArrays.open(directory, settings)
    pair_gaps = PairGaps(run_in, inputs, method, at, stored)
    outputs, gaps = pair_gaps.of_all(states, jobs=jobs, progress=progress)
    return Pool(len(states), _gram(outputs, gaps, pair_gaps.entries()))


def _gram(
    outputs: Sequence[Array], gaps: Sequence[Array], entries: NDArray[np.int64]
) -> Float[np.ndarray, "vector vector sample"]:
    """Inner products over each sample's entries."""
    count = len(outputs) + len(gaps)
    gram = np.empty((count, count, len(entries)))
    ends = np.cumsum(entries)
    for sample, (start, end) in enumerate(zip(ends - entries, ends, strict=True)):
        each = np.stack([output[start:end] for output in outputs]).astype(np.float64)
        rows = np.vstack([each - each[0], *(gap[start:end] for gap in gaps)])
        gram[:, :, sample] = rows @ rows.T
    return gram


def _weights(weights: Weights, models: int) -> NDArray[np.float64]:
    found: NDArray[np.float64] = merging_weights(weights, q=models).numpy()
    return found


def _named(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _digest(batch: Batch) -> str:
    return digest({"": batch} if isinstance(batch, Tensor) else batch)

"""Fisher-weighted averaging: each parameter by how much the outputs depend on it."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from mloss.averaging import averaged
from mloss.batches import Data
from mloss.inference import check_fits, evaluating
from mloss.merging.chance import chance_by_entry
from mloss.merging.entries import Entrywise
from mloss.merging.from_samples.fisher_information import fisher_information
from mloss.merging.from_samples.task_data import Heads, own_tasks
from mloss.merging.from_samples.tied import first_names
from mloss.merging.registry import merging_method
from mloss.one_thread import one_thread
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights


@merging_method(
    source="Matena and Raffel 2022 (arXiv 2111.09832)", needs=("model", "task_data")
)
def fisher(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    model: nn.Module,
    task_data: Sequence[Data],
    generator: torch.Generator,
    heads: Heads = None,
    weights: Weights = None,
    probes: int | None = 16,
    floor: float = 1e-6,
    normalize: bool = True,
) -> State:
    r"""sum_i c_i F_i theta_i / sum_i c_i F_i, entry by entry.

    F_i is the diagonal Fisher information of source i on its own task's samples
    (`mloss.merging.from_samples.fisher_information`), raised to at least `floor`. c_i
    is w_i, and with `normalize` w_i / ||F_i||, so that no source counts more for being
    less sure; in that norm tied parameters count once.
    Both are the defaults of the authors' code, except that it floors the Fisher of the
    first model only, which it calls the target. What is no parameter is averaged.

    `heads` read class logits off the outputs, one for each source. Without them the
    outputs are logits where they are called so, and else embeddings under a Gaussian
    law, for which the paper has no recipe. The authors take the expectation over the
    classes exactly, one backward pass for each class and sample (`probes` None); 16
    random probes a batch are an unbiased estimate of it.

    Holds one source at a time, its Fisher information, the mean so far and its weight,
    the last three in float64. One source is returned, and so are equal ones.

    Raises ValueError where models, data or heads do not fit, unless floor > 0 and
    probes >= 1, and for a source whose outputs do not depend on its parameters;
    TypeError for another kind of generator.
    """
    _check(probes, floor)
    chance = chance_by_entry(generator)
    start, states = matched(base, sources)
    check_fits(model, start)
    w = merging_weights(weights, q=len(states))
    tasks = own_tasks(task_data, heads, q=len(states))
    mean, distinct = _WeightedMean(), dict.fromkeys(first_names(model).values())
    # A backward pass adds up in as many parts as torch has threads.
    with evaluating(model), one_thread():
        for i, (state, task, share) in enumerate(
            zip(states, tasks, w.tolist(), strict=True)
        ):
            if share == 0:
                continue
            information = fisher_information(
                model, state, task, probes=probes, generator=chance(f"source {i}")
            )
            own = [information[key] for key in distinct if key in information]
            size = _size(own, owner=f"source {i}") if normalize else 1.0
            for key, value in information.items():
                mean.add(key, state[key], value.clamp(min=floor) * (share / size))

    def merged(key: str) -> Tensor:
        if key in mean.values:
            return mean.values[key].to(start[key].dtype)
        return averaged(w, [state[key] for state in states], like=start[key])

    return Entrywise(start, merged)


class _WeightedMean:
    """Means of tensors under elementwise weights, as they arrive, in float64."""

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}
        self._weights: dict[str, Tensor] = {}

    def add(self, key: str, value: Tensor, weight: Tensor) -> None:
        if key not in self.values:
            self.values[key] = value.to(torch.float64, copy=True)
            self._weights[key] = weight
            return
        self._weights[key] += weight
        share = weight / self._weights[key]
        self.values[key] += share * (value.double() - self.values[key])


def _size(information: Iterable[Tensor], *, owner: str) -> float:
    """Norm over all of a source's parameters."""
    size = vector_norm(torch.stack([vector_norm(f) for f in information]))
    if size == 0:
        raise ValueError(
            f"the outputs of {owner} do not depend on its parameters: its Fisher "
            "information is zero"
        )
    return float(size)


def _check(probes: int | None, floor: float) -> None:
    if probes is not None and probes < 1:
        raise ValueError(f"probes must be at least 1, or None, got {probes}")
    if not 0 < floor < float("inf"):
        raise ValueError(f"floor must be positive and finite, got {floor}")

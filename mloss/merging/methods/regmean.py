"""RegMean: each linear layer by regression onto the sources' own (Jin et al. 2023)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from threading import Lock

from torch import Tensor, nn

from mloss.batches import Batch, Data
from mloss.inference import check_fits, evaluating
from mloss.lockstep import in_lockstep
from mloss.merging.entries import Entrywise
from mloss.merging.from_samples.linear_layers import linear_layers
from mloss.merging.from_samples.regression import (
    Gram,
    Regression,
    check_off_diagonal,
    weight_key,
)
from mloss.merging.from_samples.task_data import entering_rows, own_tasks
from mloss.merging.registry import merging_method
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights, weighted_sum

# Bytes of normal equations at a time: all of a small model, some of a large one.
_AT_ONCE = 2**30


@merging_method(
    source="Jin et al. 2023 (arXiv 2212.09849)", needs=("model", "task_data")
)
def regmean(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    model: nn.Module,
    task_data: Sequence[Data],
    weights: Weights = None,
    off_diagonal: float = 0.9,
) -> State:
    r"""W = (sum_i w_i W_i G_i') (sum_i w_i G_i')^-1 for linear layers; means elsewhere.

    G_i is the mean of x x' over what enters the layer when source i runs on samples of
    its own task, off-diagonals scaled (`mloss.merging.from_samples.regression`). By how
    much, users differ: the authors' runs have 0.1 for RoBERTa and DeBERTa and 1 for
    DistilBERT, FusionBench 0.95 for CLIP and 0.6 for GPT-2. As in the authors' code it
    is a mean over tokens, so that tasks count by their weight and not by their samples;
    unlike there, padding is no token. Averaged with the same weights are biases, norms,
    convolutions, embeddings, and linear layers whose parameters have a second name or
    which do not run exactly once.

    The layers are solved a group at a time, as many as 1 GiB of equations in float64
    holds, when the first of the group is looked up: entries are best looked up in the
    state's order. That takes one pass of every source over its samples, parameters read
    module by module, for each group.

    One source is returned, and so are equal ones. Raises ValueError for an
    `off_diagonal` outside [0, 1] and where models or data do not fit.
    """
    check_off_diagonal(off_diagonal)
    start, states = matched(base, sources)
    check_fits(model, start)
    w = merging_weights(weights, q=len(states))
    tasks = own_tasks(task_data, q=len(states))
    with evaluating(model):
        layers = linear_layers(model, start, tasks[0].batches[0])

    def mean(key: str) -> Tensor:
        return weighted_sum(w, (state[key].double() for state in states))

    @lru_cache(maxsize=1)
    def solved(group: tuple[str, ...]) -> dict[str, Tensor]:
        keys = {name: weight_key(name) for name in group}
        fits = {
            name: Regression(mean(key), off_diagonal=off_diagonal)
            for name, key in keys.items()
        }
        for state, task, share in zip(states, tasks, w.tolist(), strict=True):
            for name, gram in _grams(model, state, task.batches, group).items():
                fits[name].add(gram, state[keys[name]], share=share)
        return {keys[name]: fit.solved() for name, fit in fits.items()}

    # A group takes passes through the one model, which no two threads can make at once.
    passes = Lock()
    group_of = {weight_key(name): g for g in _groups(layers, start) for name in g}

    def merged(key: str) -> Tensor:
        if key not in group_of:
            return mean(key).to(start[key].dtype)
        with passes:
            return solved(group_of[key])[key].to(start[key].dtype)

    return Entrywise(start, merged)


def _grams(
    model: nn.Module, state: State, inputs: Sequence[Batch], layers: Sequence[str]
) -> dict[str, Tensor]:
    """Means of x x' over what enters the layers, with the parameters of a state."""
    grams = {name: Gram() for name in layers}

    def count(name: str, entering: Mapping[int, Tensor]) -> None:
        for index, x in entering.items():
            grams[name].add(entering_rows(x, inputs[index], layer=name))

    gates = {name: partial(count, name) for name in layers}
    with evaluating(model):
        in_lockstep(model, state, inputs, before=gates)
    return {name: gram.mean for name, gram in grams.items() if gram.mean is not None}


def _groups(layers: Iterable[str], state: State) -> Iterator[tuple[str, ...]]:
    """Layers in the state's order, together where `_AT_ONCE` bytes hold them."""
    layer_of = {weight_key(name): name for name in layers}
    group: list[str] = []
    held = 0
    for key in state:
        if key not in layer_of:
            continue
        outputs, inputs = state[key].shape
        # The sum of Grams and one Gram, where the fit starts and its right-hand side.
        size = 8 * 2 * inputs * (inputs + outputs)
        if group and held + size > _AT_ONCE:
            yield tuple(group)
            group, held = [], 0
        group.append(layer_of[key])
        held += size
    if group:
        yield tuple(group)

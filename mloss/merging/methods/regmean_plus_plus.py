"""RegMean++: RegMean on what the merge itself feeds its layers (Nguyen et al. 2025)."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from torch import Tensor, nn

from mloss.batches import Data
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
from mloss.streaming import AveragedState
from mloss.weights import Weights, merging_weights


@merging_method(
    source="Nguyen et al. 2025 (arXiv 2508.03121)", needs=("model", "task_data")
)
def regmean_plus_plus(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    model: nn.Module,
    task_data: Sequence[Data],
    weights: Weights = None,
    off_diagonal: float = 0.95,
) -> State:
    """`regmean` with each G_i over what enters the layer of the merge, not of source i.

    All tasks' samples go through the running merge in one pass. Before each linear
    layer they stop, the layer is solved from what is about to enter it, and they go on
    through the layer just merged. The authors' code refreshes the inputs only from one
    transformer block to the next, and within a block runs each source's own layers on
    them; the off-diagonal factor is theirs for CLIP.

    Holds the merged linear layers, one layer's equations with a Gram of every task, and
    the hidden states of all samples at one depth; the rest is averaged as `regmean`
    does, when it is looked up.

    One source is returned, and so are equal ones. Raises as `regmean` does.
    """
    check_off_diagonal(off_diagonal)
    start, states = matched(base, sources)
    check_fits(model, start)
    w = merging_weights(weights, q=len(states))
    tasks = own_tasks(task_data, q=len(states))
    inputs = [batch for task in tasks for batch in task.batches]
    owner = [i for i, task in enumerate(tasks) for _ in task.batches]
    average = AveragedState(start, states, weights=w)
    solved: dict[str, Tensor] = {}

    def merged(key: str) -> Tensor:
        return solved[key] if key in solved else average[key]

    def solve(name: str, entering: Mapping[int, Tensor]) -> None:
        key = weight_key(name)
        grams = [Gram() for _ in states]
        for index, x in entering.items():
            rows = entering_rows(x, inputs[index], layer=name)
            grams[owner[index]].add(rows)
        fit = Regression(average[key], off_diagonal=off_diagonal)
        for gram, state, share in zip(grams, states, w.tolist(), strict=True):
            if gram.mean is not None:
                fit.add(gram.mean, state[key], share=share)
        solved[key] = fit.solved().to(start[key].dtype)

    running = Entrywise(start, merged)
    with evaluating(model):
        layers = linear_layers(model, start, inputs[0])
        gates = {name: partial(solve, name) for name in layers}
        in_lockstep(model, running, inputs, before=gates)
    return running

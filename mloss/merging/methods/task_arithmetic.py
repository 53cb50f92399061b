"""Task arithmetic: add scaled task vectors to the base (Ilharco et al. 2022)."""

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor, nn

from mloss.merging.registry import merging_method
from mloss.merging.task_vectors import moved_by_tiles
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights, weighted_sum


@merging_method(source="Ilharco et al. 2023 (arXiv 2212.04089)")
def task_arithmetic(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    weights: Weights = None,
    scale: float = 1.0,
) -> State:
    """Theta + scale * sum_i w_i (theta_i - theta), with lambda = scale (section 2.1).

    At scale 1 it is the average of the sources, at scale 0 the base. Raises
    ValueError for a scale that is not finite and models or weights that do not fit.
    """
    start, states = matched(base, sources)
    w = merging_weights(weights, q=len(states))

    def step(vectors: Float[Tensor, "q value"], _: int) -> Float[Tensor, " value"]:
        return weighted_sum(w, vectors)

    return moved_by_tiles(start, states, combine=lambda _: step, scale=scale)

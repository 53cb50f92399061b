"""TIES-Merging: trim, elect a sign, merge who agrees (Yadav et al. 2023)."""

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor, nn

from mloss.merging.pruning.cut import trimmed
from mloss.merging.pruning.elect import Combine, combine_elected
from mloss.merging.pruning.given_rates import by_node
from mloss.merging.pruning.global_trim import Trimming, cuts_by_entry
from mloss.merging.pruning.node_rates import NodeRates
from mloss.merging.pruning.row_wise import trimmed_step
from mloss.merging.registry import merging_method
from mloss.merging.task_vectors import PieceStep, moved_by_tiles
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights


@merging_method(source="Yadav et al. 2023 (arXiv 2306.01708)")
def ties(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    weights: Weights = None,
    density: float = 0.2,
    scale: float = 1.0,
    combine: Combine = "disjoint_mean",
    trimming: Trimming = "tensor",
    rates: NodeRates | None = None,
) -> State:
    """Theta + scale * step, the step by TIES with one budget for each tensor.

    Each task vector keeps the `density` fraction of its entries largest in size
    (`trim`); an entry's sign is elected by weighted mass, and the sources that agree
    are merged by `combine` (`combine_elected`). At density 0 it is the base.

    The paper and mergekit trim tensor by tensor; with `trimming` "model" all tensors
    together have one budget, as in the authors' program and FusionBench, which keep one
    entry more (`cuts_by_entry`). Nodes that have `rates` are trimmed to these, each
    with its row and bias together, and everything else as above. Raises ValueError for
    a density outside [0, 1], another `combine` or `trimming`, and models, weights or
    rates that do not fit.
    """
    start, states = matched(base, sources)
    w = merging_weights(weights, q=len(states))

    cuts_of = cuts_by_entry(
        start,
        states,
        density=density,
        trimming=trimming,
        apart=rates.layer_of if rates else (),
    )

    def step(key: str) -> PieceStep:
        cuts = cuts_of(key)

        def combined(
            vectors: Float[Tensor, "q value"], position: int
        ) -> Float[Tensor, " value"]:
            pairs = zip(vectors, cuts, strict=True)
            kept = [trimmed(vector, cut, start=position) for vector, cut in pairs]
            return combine_elected(kept, w, combine=combine)

        return combined

    return by_node(
        start,
        states,
        rest=moved_by_tiles(start, states, combine=step, scale=scale),
        rates=rates,
        step=trimmed_step(w, combine=combine),
        scale=scale,
    )

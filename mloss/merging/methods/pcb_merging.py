"""PCB-Merging: balance the competition of parameters (Du et al. 2024)."""

from collections.abc import Iterable
from functools import cache

from jaxtyping import Float
from torch import Tensor, nn

from mloss.merging.pruning.competition import (
    Clip,
    balanced_mean,
    balances,
    measured_clip,
    measured_range,
    ranges_of_rows,
    shares_kept,
)
from mloss.merging.pruning.counted import counted
from mloss.merging.pruning.given_rates import by_node
from mloss.merging.pruning.global_trim import Trimming, check_trimming, entry_sizes
from mloss.merging.pruning.keep_rates import check_rates
from mloss.merging.pruning.node_rates import NodeRates
from mloss.merging.registry import merging_method
from mloss.merging.task_vectors import PieceStep, moved_by_tiles
from mloss.states import State, matched
from mloss.weights import Weights, merging_weights


@merging_method(source="Du et al. 2024 (arXiv 2410.02396)")
def pcb_merging(
    base: nn.Module | State,
    sources: Iterable[nn.Module | State],
    *,
    weights: Weights = None,
    density: float = 0.1,
    scale: float = 1.0,
    trimming: Trimming = "model",
    rates: NodeRates | None = None,
) -> State:
    """Theta + scale * sum_i w_i s_i t_i / sum_i w_i s_i, entry by entry.

    The task vectors t_i, whose sizes are clipped at the 0.01 % smallest and largest,
    compete for each entry by their balances b_i = exp(q n_i^2) tanh(t_i sum_j t_j),
    with n_i = |t_i| scaled to [0, 1]. Of every source the `density` with the highest
    balances stay, and s_i is b_i scaled to [0, 1] among them; where nobody is left, or
    at density 0, the entry is the base's. Weights other than 1/q enter the mean as
    above and the sum as q sum_j w_j t_j; sources of weight 0 are left out. With one
    source alone, what stays is the source's but for the clip.

    This is PCB_merge of the authors' program, where clips, thresholds and scales are
    those of all tensors together. Their script for CLIP has density 0.05 and scale 1.2
    (lambda), clips at 1 % and has n_j sign(t_j) for t_j in the sum; the paper writes
    softmaxes for exp and tanh. With `trimming` "tensor" each tensor is a competition
    of its own. Layers that have `rates` are clipped by themselves; each of their nodes
    is a competition of its own, which keeps its rate of the row and bias together.

    Raises ValueError for a density outside [0, 1], another `trimming`, a scale that is
    not finite and models, weights or rates that do not fit.
    """
    check_rates(density)
    check_trimming(trimming)
    start, every = matched(base, sources)
    states, w = counted(every, merging_weights(weights, q=len(every)))
    layers = rates.layers if rates else {}
    apart = {key for keys in layers.values() for key in keys}
    everywhere = tuple(key for key in entry_sizes(start) if key not in apart)

    @cache
    def measured(keys: tuple[str, ...]) -> tuple[Clip, Tensor, Tensor]:
        clip = measured_clip(start, states, keys)
        lowest, highest = measured_range(
            start, states, keys, clip=clip, weights=w, density=density
        )
        return clip, lowest, highest

    def step(key: str) -> PieceStep:
        clip, lowest, highest = measured(everywhere if trimming == "model" else (key,))

        def combined(
            vectors: Float[Tensor, "q value"], _: int
        ) -> Float[Tensor, " value"]:
            values = balances(vectors, clip, weights=w)
            shares = shares_kept(values, lowest, highest)
            return balanced_mean(vectors, shares, clip, weights=w)

        return combined

    def of_rows(
        layer: str, rows: Float[Tensor, "q node entry"], keep: Float[Tensor, " node"]
    ) -> Float[Tensor, "node entry"]:
        clip = measured_clip(start, states, layers[layer])
        values = balances(rows, clip, weights=w)
        shares = shares_kept(values, *ranges_of_rows(values, keep))
        return balanced_mean(rows, shares, clip, weights=w)

    return by_node(
        start,
        states,
        rest=moved_by_tiles(start, states, combine=step, scale=scale),
        rates=rates,
        step=of_rows,
        scale=scale,
    )

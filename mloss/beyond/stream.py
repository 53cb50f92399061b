r"""Where the merged-vs-ensemble gap enters the residual stream, and how it is carried.

M-Loss looks at one layer with one shared input. In the network the inputs of a block
differ: the merge has its own, and so has every source. With x what enters block F in
the merge, x_i in source i and m = sum_i w_i x_i, the gap behind the block is, exactly,

.. math:: F_{merge}(x) - \sum_i w_i F_i(x_i)
          = \underbrace{F_{merge}(x) - F_{merge}(m)}_{carried}
          + \underbrace{F_{merge}(m) - \sum_i w_i F_i(m)}_{within}
          + \underbrace{\sum_i w_i \bigl(F_i(m) - F_i(x_i)\bigr)}_{cross}.

*carried* is what the block makes of the gap x - m that reaches it; *within* is newly
made by the block on one shared input, where M-Loss and attention M-Loss lie; *cross*
is newly made by inputs that differ from source to source: earlier layers' parameters
together with this block's bend and with this block's parameters.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from mloss.batches import Batch, Data, batches, real_tokens, size
from mloss.beyond.calls import Call, recorded_calls, repeated
from mloss.beyond.sample_means import SampleMeans, length
from mloss.given_models import Model, in_one_model
from mloss.inference import called, evaluating
from mloss.pre_activations import own_state
from mloss.states import State
from mloss.streaming import streamed
from mloss.weights import Weights, merging_weights, weighted_sum

PARTS = ("carried", "within", "cross")


@dataclass(frozen=True)
class BlockGap:
    """The gap of the residual stream behind one block, and its three parts.

    `gap`, `incoming` (before the block), `carried`, `within` and `cross` are means of
    Euclidean norms over a sample's tokens, then samples; `relative` is `gap` over the
    mean norm of the ensemble's stream. The parts add up as vectors: a share is the
    part's inner product with the gap over that of the gap with itself, so that the
    three add up to 1 (all are 0 where there is no gap).
    """

    block_name: str
    incoming: float
    gap: float
    gap_stderr: float
    relative: float
    carried: float
    within: float
    cross: float
    carried_share: float
    within_share: float
    cross_share: float


@dataclass(frozen=True)
class StreamGap:
    """The gaps behind all blocks in the order of the network."""

    blocks: tuple[BlockGap, ...]
    samples: int


def stream_gap(
    merged: Model,
    sources: Iterable[Model],
    data: Data,
    *,
    model: nn.Module | None = None,
    weights: Weights = None,
) -> StreamGap:
    """Follow the gap between a merge and the ensemble of its sources block by block.

    Blocks are the items of an nn.ModuleList or nn.Sequential, the outermost ones,
    that run once and map [sample, token, node] or [sample, node] to the same shape.
    Takes two forward passes of the merge and of each source, in the precision of the
    model; differences are float64. Any merge will do. Arguments are those of
    `mloss.gap`. Raises ValueError for models, weights or data that do not fit, for
    values that are not finite and for a network without blocks.
    """
    run_in, ours, states = in_one_model(merged, sources, model=model, base_is="merged")
    w = merging_weights(weights, q=len(states))
    means: dict[str, SampleMeans] | None = None
    samples = 0
    with evaluating(run_in):
        for batch in batches(data):
            if means is None:
                names = find_blocks(run_in, ours, batch)
                means = {name: SampleMeans() for name in names}
            passed = _passed(run_in, ours, batch, names=list(means))
            own = _ensembled(run_in, states, batch, names=list(means), w=w)
            for name, (x, y) in own.items():
                block = _Block(run_in, name, call=passed[name], mean_input=x)
                values = _measures(block, ours, states, mean_output=y, w=w)
                means[name].add(values, tokens=real_tokens(batch))
            samples += size(batch)
    blocks = tuple(_block_gap(name, found) for name, found in (means or {}).items())
    return StreamGap(blocks, samples)


def find_blocks(model: nn.Module, state: State, batch: Batch) -> list[str]:
    """Names of the blocks of the residual stream in the order in which they run.

    Raises ValueError where there is none.
    """
    names = [
        f"{name}.{child}" if name else child
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential)
        for child, _ in module.named_children()
    ]
    with streamed(model, state), recorded_calls(model, names) as calls:
        called(model, batch)
    found: list[str] = []
    for name in names:
        inner = any(name.startswith(f"{outer}.") for outer in found)
        if not inner and _keeps_shape(calls[name], samples=size(batch)):
            found.append(name)
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no blocks: no nn.ModuleList or nn.Sequential "
            "whose items run once and keep the shape [sample, token, node]"
        )
    return [name for name in calls if name in found]


def _keeps_shape(calls: list[Call], *, samples: int) -> bool:
    if len(calls) != 1:
        return False
    x, y = calls[0].input, calls[0].output
    return x.ndim in (2, 3) and x.shape == y.shape and len(x) == samples


def _passed(
    model: nn.Module, state: State, batch: Batch, *, names: list[str]
) -> dict[str, Call]:
    """The calls of the blocks in one model."""
    with streamed(model, state), recorded_calls(model, names) as calls:
        called(model, batch)
    return {name: calls[name][0] for name in names}


def _ensembled(
    model: nn.Module,
    states: Sequence[State],
    batch: Batch,
    *,
    names: list[str],
    w: Tensor,
) -> dict[str, tuple[Tensor, Tensor]]:
    """sum_i w_i x_i and sum_i w_i F_i(x_i) of every block, each source by itself."""
    sums: dict[str, tuple[Tensor, Tensor]] = {}
    for weight, state in zip(w.tolist(), states, strict=True):
        for name, call in _passed(model, state, batch, names=names).items():
            x, y = weight * call.input.double(), weight * call.output.double()
            before = sums.get(name)
            sums[name] = (before[0] + x, before[1] + y) if before else (x, y)
    return sums


@dataclass(frozen=True, eq=False)
class _Block:
    """One block in the merge's call, and the ensemble's mean input to it."""

    model: nn.Module
    name: str
    call: Call
    mean_input: Tensor

    def on_mean(self, state: State) -> Tensor:
        """F(m) with the parameters of a state."""
        own = own_state(self.model, self.name, state)
        shared = self.call.on(self.mean_input.to(self.call.input.dtype))
        return repeated(self.model.get_submodule(self.name), own, shared).double()


def _measures(
    block: _Block,
    merged: State,
    states: Sequence[State],
    *,
    mean_output: Tensor,
    w: Tensor,
) -> dict[str, Tensor]:
    """All that is averaged, [sample, *token, 1]."""
    output, on_mean = block.call.output.double(), block.on_mean(merged)
    each_on_mean = weighted_sum(w, (block.on_mean(state) for state in states))
    gap = output - mean_output
    parts = (output - on_mean, on_mean - each_on_mean, each_on_mean - mean_output)
    values = {name: length(part) for name, part in zip(PARTS, parts, strict=True)}
    values |= {
        f"{name}_share": (part * gap).sum(dim=-1, keepdim=True)
        for name, part in zip(PARTS, parts, strict=True)
    }
    return values | {
        "incoming": length(block.call.input.double() - block.mean_input),
        "gap": length(gap),
        "square": gap.square().sum(dim=-1, keepdim=True),
        "size": length(mean_output),
    }


def _block_gap(name: str, means: SampleMeans) -> BlockGap:
    gap, ensembled, square = (means.number(key) for key in ("gap", "size", "square"))
    shares = {
        f"{part}_share": means.number(f"{part}_share") / square if square else 0.0
        for part in PARTS
    }
    return BlockGap(
        block_name=name,
        incoming=means.number("incoming"),
        gap=gap,
        gap_stderr=means["gap"].stderr.item(),
        relative=gap / ensembled if ensembled else (math.inf if gap else 0.0),
        **{part: means.number(part) for part in PARTS},
        **shares,
    )

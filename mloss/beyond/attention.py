r"""M-Loss of attention: averaged queries, keys and values against averaged heads.

Definitions 3.3 to 3.6 compare, at a layer with one shared input, what averaged
parameters make with the average of what the sources make, behind the first operation
that does not commute with averaging. In a feed-forward layer that is the activation
and a node is one number. In attention it is softmax(q k') v, and the least unit that
it acts on as a whole is a head. With x the shared input, q, k and v the averaged
projections and o_h(theta; x) in R^head_dim the output of head h at one token,

.. math:: d_h = o_h\bigl(\textstyle\sum_i w_i\theta_i; x\bigr)
              - \sum_i w_i\, o_h(\theta_i; x).

The M-Loss of a head is the mean over tokens of the Euclidean norm ||d_h|| (as Eq. 4,
the absolute value), of the layer that of sqrt(sum_h ||d_h||^2) (Eq. 3, as Eq. 5 has
it), and their normalised forms divide by the norm of the merged side plus eps at each
token (Eqs. 7 and 6). For heads of one number and one token it is Eq. 4 again.

With A the pattern softmax(q k') of averaged queries and keys, A_i the sources' and v
the averaged values, d_h has two parts,

.. math:: d_h = \Bigl(A - \sum_i w_i A_i\Bigr) v
              - \sum_i w_i \Bigl(A_i - \sum_j w_j A_j\Bigr)(v_i - v),

the *pattern*: what averaging queries and keys does; and the *product* of patterns and
values, which would be there without a softmax. The module's output adds the output
projection, W o + b against sum_i w_i (W_i o_i + b_i) with o all heads side by side:
again a part that comes from the heads, W d, and one of the product,
-sum_i w_i (W_i - W)(o_i - sum_j w_j o_j).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from mloss.batches import Data, batches, real_tokens, size
from mloss.beyond.attention_modules import (
    Attention,
    find_attention,
    head_outputs,
    projected,
    projection_of,
    with_values,
)
from mloss.beyond.calls import Call, recorded_calls
from mloss.beyond.sample_means import SampleMeans, length
from mloss.definitions import relative
from mloss.given_models import Model, in_one_model
from mloss.inference import called, evaluating
from mloss.pre_activations import own_state
from mloss.states import State
from mloss.streaming import AveragedState, streamed
from mloss.weights import Weights, merging_weights


@dataclass(frozen=True)
class AttentionLoss:
    """M-Loss of one attention module: means over a sample's tokens, then samples.

    `head` [head] and `layer` are Euclidean norms of what the merge and the ensemble
    differ by, before the output projection, and `output` is the same behind it.
    `_pattern` and `_product`, `_heads` and `_projection` are the norms of the two
    parts; the parts add up as vectors, their norms do not. `_stderr` is the standard
    error over samples, infinite for one; `_normalized` is relative to the merge.
    """

    layer_name: str
    heads: int
    head: Float[Tensor, " head"]
    head_stderr: Float[Tensor, " head"]
    head_normalized: Float[Tensor, " head"]
    head_pattern: Float[Tensor, " head"]
    head_product: Float[Tensor, " head"]
    layer: float
    layer_stderr: float
    layer_normalized: float
    layer_pattern: float
    layer_product: float
    output: float
    output_stderr: float
    output_normalized: float
    output_heads: float
    output_projection: float


@dataclass(frozen=True)
class AttentionScore:
    """The losses of all attention modules in the order of the network.

    `not_covered` has the reason for every attention module that is not among them.
    """

    modules: tuple[AttentionLoss, ...]
    not_covered: Mapping[str, str]
    samples: int


def attention_mloss(
    base: Model,
    sources: Iterable[Model],
    data: Data,
    *,
    model: nn.Module | None = None,
    weights: Weights = None,
    inputs: Literal["merge", "base"] = "merge",
    eps: float = 1e-4,
) -> AttentionScore:
    """Measure the M-Loss of every attention module in one pass over the data.

    The shared input of a module is the call it gets in the average of the sources
    ("merge") or in the base, with its masks and positions. Arguments are those of
    `mloss.score`. Heads are computed in the precision of the model, the rest in
    float64; memory grows with the batch, not with the data. See `find_attention` for
    which modules are covered; a network without attention has none.

    Raises ValueError for models, weights or data that do not fit, for values that are
    not finite, and for another `inputs`.
    """
    if inputs not in ("merge", "base"):
        raise ValueError(f"inputs must be 'merge' or 'base', got {inputs!r}")
    run_in, start, states = in_one_model(base, sources, model=model)
    w = merging_weights(weights, q=len(states))
    merged = AveragedState(start, states, weights=w)
    carrier = merged if inputs == "merge" else start
    found: tuple[Attention, ...] | None = None
    not_covered: Mapping[str, str] = {}
    means: dict[str, SampleMeans] = {}
    samples = 0
    with evaluating(run_in):
        for batch in batches(data):
            if found is None:
                found, not_covered = find_attention(run_in, carrier, batch)
                means = {attention.name: SampleMeans() for attention in found}
            with streamed(run_in, carrier), recorded_calls(run_in, means) as calls:
                called(run_in, batch)
            for a in found:
                sides = _sides(run_in, a, merged, states, call=calls[a.name][0], w=w)
                losses = sides.losses(eps=eps)
                means[a.name].add(losses, tokens=real_tokens(batch))
            samples += size(batch)
    modules = tuple(_loss(a, means[a.name]) for a in found or ())
    return AttentionScore(modules, not_covered, samples)


@dataclass(frozen=True)
class _Sides:
    """The heads and the module's output in the merge and in the ensemble.

    `mixed` are heads with the sources' patterns and averaged values; `through` is the
    ensemble of the heads in the merge's projection.
    """

    merged: Float[Tensor, "sample token head entry"]
    mixed: Float[Tensor, "sample token head entry"]
    ensembled: Float[Tensor, "sample token head entry"]
    output_merged: Float[Tensor, "sample token node"]
    output_through: Float[Tensor, "sample token node"]
    output_ensembled: Float[Tensor, "sample token node"]

    def losses(self, *, eps: float) -> dict[str, Tensor]:
        """All that is averaged, [sample, token, node]."""
        heads = {
            "": self.merged - self.ensembled,
            "_pattern": self.merged - self.mixed,
            "_product": self.mixed - self.ensembled,
        }
        outputs = {
            "": self.output_merged - self.output_ensembled,
            "_heads": self.output_merged - self.output_through,
            "_projection": self.output_through - self.output_ensembled,
        }
        losses = {f"head{part}": length(d).squeeze(-1) for part, d in heads.items()}
        losses |= {f"layer{part}": length(d.flatten(2)) for part, d in heads.items()}
        losses |= {f"output{part}": length(d) for part, d in outputs.items()}
        sizes = {
            "head": length(self.merged).squeeze(-1),
            "layer": length(self.merged.flatten(2)),
            "output": length(self.output_merged),
        }
        for name, against in sizes.items():
            losses[f"{name}_normalized"] = relative(losses[name], against, eps=eps)
        return losses


def _sides(
    model: nn.Module,
    attention: Attention,
    average: State,
    states: Sequence[State],
    *,
    call: Call,
    w: Tensor,
) -> _Sides:
    mean = own_state(model, attention.name, average)
    mean_projection = projection_of(attention, average)

    def heads(parameters: State) -> Tensor:
        return head_outputs(model, attention, parameters, call)

    merged = heads(mean)
    mixed = ensembled = output = merged.new_zeros(())
    for weight, state in zip(w.tolist(), states, strict=True):
        own = own_state(model, attention.name, state)
        each = heads(own)
        mixed = mixed + weight * heads(with_values(attention, own, mean))
        ensembled = ensembled + weight * each
        output = output + weight * projected(projection_of(attention, state), each)
    return _Sides(
        merged,
        mixed,
        ensembled,
        output_merged=projected(mean_projection, merged),
        output_through=projected(mean_projection, ensembled),
        output_ensembled=output,
    )


def _loss(attention: Attention, means: SampleMeans) -> AttentionLoss:
    return AttentionLoss(
        layer_name=attention.name,
        heads=attention.heads,
        head=means["head"].mean,
        head_stderr=means["head"].stderr,
        head_normalized=means["head_normalized"].mean,
        head_pattern=means["head_pattern"].mean,
        head_product=means["head_product"].mean,
        layer=means.number("layer"),
        layer_stderr=means["layer"].stderr.item(),
        layer_normalized=means.number("layer_normalized"),
        layer_pattern=means.number("layer_pattern"),
        layer_product=means.number("layer_product"),
        output=means.number("output"),
        output_stderr=means["output"].stderr.item(),
        output_normalized=means.number("output_normalized"),
        output_heads=means.number("output_heads"),
        output_projection=means.number("output_projection"),
    )

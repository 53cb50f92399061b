r"""M-Loss of layer and RMS normalisations.

A normalisation n(x) with gain g and bias b is linear in its parameters: on one shared
input, averaged gains and biases give the average of the sources' outputs exactly, and
Algorithm 1 has nothing to measure here. What does not commute with averaging is n
itself, over inputs that differ. Definitions 3.3 and 3.4 take every source's own
intermediate representation, h_i = h_{M_i}(x), so the node's loss is theirs with the
normalisation for the activation,

.. math:: D = \Bigl| N_{\bar\theta}\bigl(\textstyle\sum_i w_i x_i\bigr)
              - \sum_i w_i N_{\theta_i}(x_i) \Bigr|,
              \qquad N_\theta(x) = g\, n(x) + b,

with x_i what reaches the normalisation in source i run by itself. Of the difference,
N_mean(sum_i w_i x_i) - sum_i w_i N_mean(x_i) is the *bend* of n, and the rest the
*product* of gains and inputs, -sum_i w_i (g_i - g)(n(x_i) - sum_j w_j n(x_j)). What
reaches the normalisation in the merge is not sum_i w_i x_i: that difference was made
in earlier blocks, and `mloss.beyond.stream` follows it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.batches import Batch, Data, batches, real_tokens, size
from mloss.beyond.calls import Call, recorded_calls, repeated
from mloss.beyond.sample_means import SampleMeans, length
from mloss.definitions import relative
from mloss.given_models import Model, in_one_model
from mloss.inference import called, evaluating
from mloss.pre_activations import own_state
from mloss.states import State, listed
from mloss.streaming import AveragedState, streamed
from mloss.weights import Weights, merging_weights


@dataclass(frozen=True)
class NormLoss:
    """M-Loss of one normalisation: means over a sample's tokens, then samples.

    `node` [node] and `layer` are Eqs. 4 and 3 with their standard errors over samples
    (infinite for one), `_normalized` Eqs. 7 and 6. `layer_bend` and `layer_product`
    are the norms of the two parts, which add up as vectors.
    """

    layer_name: str
    node: Float[Tensor, " node"]
    node_stderr: Float[Tensor, " node"]
    node_normalized: Float[Tensor, " node"]
    layer: float
    layer_stderr: float
    layer_normalized: float
    layer_bend: float
    layer_product: float


@dataclass(frozen=True)
class NormScore:
    """The losses of all normalisations in the order of the network.

    `not_covered` has the reason for every normalisation that is not among them.
    """

    norms: tuple[NormLoss, ...]
    not_covered: Mapping[str, str]
    samples: int


def norm_mloss(
    sources: Iterable[Model],
    data: Data,
    *,
    model: nn.Module | None = None,
    weights: Weights = None,
    eps: float = 1e-4,
) -> NormScore:
    """Measure the M-Loss of every LayerNorm and RMSNorm, sources on their own inputs.

    Takes one forward pass of each source. Covered are modules with LayerNorm or
    RMSNorm in their class's name that run once, over the last axis of [sample, node]
    or [sample, token, node]. Arguments and errors are those of `attention_mloss`;
    state dicts run in the architecture `model`.
    """
    given = listed(sources)
    run_in, first, states = in_one_model(
        given[0], given, model=model, base_is="source 0"
    )
    w = merging_weights(weights, q=len(states))
    average = AveragedState(first, states, weights=w)
    means: dict[str, SampleMeans] | None = None
    not_covered: Mapping[str, str] = {}
    samples = 0
    with evaluating(run_in):
        for batch in batches(data):
            if means is None:
                names, not_covered = _find_norms(run_in, first, batch)
                means = {name: SampleMeans() for name in names}
            sums = {name: _Sums(run_in, name, average) for name in means}
            for weight, state in zip(w.tolist(), states, strict=True):
                with streamed(run_in, state), recorded_calls(run_in, sums) as calls:
                    called(run_in, batch)
                for name, total in sums.items():
                    total.add(calls[name][0], weight=weight)
            for name, total in sums.items():
                means[name].add(total.losses(eps=eps), tokens=real_tokens(batch))
            samples += size(batch)
    norms = tuple(_loss(name, found) for name, found in (means or {}).items())
    return NormScore(norms, not_covered, samples)


class _Sums:
    """Weighted sums over sources of what a normalisation takes and gives."""

    def __init__(self, model: nn.Module, name: str, average: State) -> None:
        self._module = model.get_submodule(name)
        self._mean = own_state(model, name, average)
        zero = torch.zeros((), dtype=torch.float64)
        self._inputs, self._ensembled, self._mixed = zero, zero, zero

    def add(self, call: Call, *, weight: float) -> None:
        """Count in one source's call, and what averaged gains make of its input."""
        mixed = repeated(self._module, self._mean, call)
        self._inputs = self._inputs + weight * call.input.double()
        self._ensembled = self._ensembled + weight * call.output.double()
        self._mixed = self._mixed + weight * mixed.double()
        self._call = call

    def losses(self, *, eps: float) -> dict[str, Tensor]:
        """All that is averaged, [sample, *token, node]."""
        mean_input = self._inputs.to(self._call.input.dtype)
        merged = repeated(self._module, self._mean, self._call.on(mean_input)).double()
        off = merged - self._ensembled
        return {
            "node": off.abs(),
            "node_normalized": relative(off.abs(), merged.abs(), eps=eps),
            "layer": length(off),
            "layer_normalized": relative(length(off), length(merged), eps=eps),
            "layer_bend": length(merged - self._mixed),
            "layer_product": length(self._mixed - self._ensembled),
        }


def _find_norms(
    model: nn.Module, state: State, batch: Batch
) -> tuple[list[str], dict[str, str]]:
    """Names of the normalisations that are covered, and why the others are not."""
    names = [
        name
        for name, module in model.named_modules()
        if "Norm" in type(module).__name__ and not list(module.children())
    ]
    with streamed(model, state), recorded_calls(model, names) as calls:
        called(model, batch)
    against = {
        name: _against(model.get_submodule(name), calls[name], samples=size(batch))
        for name in names
    }
    covered = [name for name, reason in against.items() if not reason]
    return covered, {name: reason for name, reason in against.items() if reason}


def _against(module: nn.Module, calls: list[Call], *, samples: int) -> str:
    """What speaks against a normalisation; nothing where it is covered."""
    kind = type(module).__name__
    if not ("LayerNorm" in kind or "RMSNorm" in kind):
        return f"{kind} is neither a layer nor an RMS normalisation"
    if len(calls) != 1:
        return f"it runs {len(calls)} times in one forward pass"
    shape = calls[0].input.shape
    if len(shape) not in (2, 3) or shape[0] != samples:
        return f"its input {list(shape)} is not [sample, token, node]"
    return ""


def _loss(name: str, means: SampleMeans) -> NormLoss:
    return NormLoss(
        layer_name=name,
        node=means["node"].mean,
        node_stderr=means["node"].stderr,
        node_normalized=means["node_normalized"].mean,
        layer=means.number("layer"),
        layer_stderr=means["layer"].stderr.item(),
        layer_normalized=means.number("layer_normalized"),
        layer_bend=means.number("layer_bend"),
        layer_product=means.number("layer_product"),
    )

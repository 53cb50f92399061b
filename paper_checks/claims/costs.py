"""The inference cost of Section 6.3, counted by hooks on a network that runs."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from paper_checks.record import Finding, How, Verdict
from paper_checks.registry import claim

# ViT-B/32 has 12 blocks; the paper merges eight models of it.
LAYERS, SOURCES = 12, 8
Layers = Sequence[nn.Module]


@dataclass
class Count:
    """Forward passes through layers since the count began."""

    layers: int = 0


@contextmanager
def counted(*models: Layers) -> Iterator[Count]:
    """Count the forward passes of every layer of the models within the block."""
    count = Count()

    def add(*_: object) -> None:
        count.layers += 1

    with ExitStack() as stack:
        for layer in (layer for model in models for layer in model):
            stack.callback(layer.register_forward_hook(add).remove)
        yield count


def shared_input(merged: Layers, sources: Sequence[Layers], layer: int) -> Tensor:
    """Pre-activations of every source at a layer, as Section 6.3 computes them."""
    x = _through(merged[: layer - 1])
    return torch.stack([source[layer - 1](x) for source in sources])


def every_model_alone(sources: Sequence[Layers], layer: int) -> Tensor:
    """Pre-activations at a layer with every source fed from the start."""
    return torch.stack([_through(source[:layer]) for source in sources])


def all_layers_shared(
    merged: Layers, sources: Sequence[Layers], layers: set[int]
) -> None:
    """M-Loss inputs of the given layers, the merged model's last output kept."""
    x = _input()
    for index in range(1, max(layers) + 1):
        if index in layers:
            for source in sources:
                source[index - 1](x)
        if index < max(layers):
            x = torch.relu(merged[index - 1](x))


@claim(
    "cost-of-one-layer",
    where="Section 6.3",
    states="Layer k costs k - 1 + q layer passes, much less than the kq of passing the "
    "input to each model",
    recorded="confirmed",
)
def cost_of_one_layer() -> Finding:
    """Count both schedules at every layer."""
    merged, sources = _networks()
    shared, alone = [], []
    for layer in range(1, LAYERS + 1):
        with counted(merged, *sources) as count:
            shared_input(merged, sources, layer)
        shared.append(count.layers)
        with counted(*sources) as count:
            every_model_alone(sources, layer)
        alone.append(count.layers)
    ks = range(1, LAYERS + 1)
    as_stated = shared == [k - 1 + SOURCES for k in ks]
    as_stated &= alone == [k * SOURCES for k in ks]
    return Finding(
        Verdict.CONFIRMED if as_stated else Verdict.CORRECTED,
        found=f"{shared[-1]} against {alone[-1]} passes at layer {LAYERS} with q = "
        f"{SOURCES}; the saving is (k - 1)(q - 1), none at the first layer",
        uncertainty="none: counted",
        how=(How.MEASURED, How.ARITHMETIC),
        truth="" if as_stated else f"The counts are {shared} and {alone}.",
        numbers={"shared": shared, "alone": alone},
    )


@claim(
    "cost-of-all-layers",
    where="Section 6.3",
    states="Our question: does M-TIES cost much less than passing the input to each "
    "model individually over the whole merge too, not for one layer only?",
    recorded="corrected",
)
def cost_of_all_layers() -> Finding:
    """Count all layers, starting afresh for each and with hidden states kept."""
    merged, sources = _networks()
    layers = range(1, LAYERS + 1)
    with counted(merged, *sources) as printed:
        for layer in layers:
            shared_input(merged, sources, layer)
    with counted(*sources) as printed_alone:
        for layer in layers:
            every_model_alone(sources, layer)
    with counted(merged, *sources) as kept:
        all_layers_shared(merged, sources, set(layers))
    with counted(*sources) as kept_alone:
        every_model_alone(sources, LAYERS)
    less = printed.layers < printed_alone.layers and kept.layers < kept_alone.layers
    return Finding(
        Verdict.CONFIRMED if less else Verdict.CORRECTED,
        found=f"L = {LAYERS}, q = {SOURCES}: {printed.layers} against "
        f"{printed_alone.layers} passes when every layer starts from the input, "
        f"{kept.layers} against {kept_alone.layers} when hidden states are kept",
        uncertainty="none: counted",
        how=(How.MEASURED, How.ARITHMETIC),
        truth=""
        if less
        else "With hidden states kept, one pass of each model gives all layers for qL "
        "passes and M-TIES needs (q + 1)L - 1: slightly more, not much less.",
        numbers={
            "from_input_shared": printed.layers,
            "from_input_alone": printed_alone.layers,
            "kept_shared": kept.layers,
            "kept_alone": kept_alone.layers,
        },
    )


@claim(
    "few-layer-cost",
    where="Section 6.6",
    states="With the first and last few layers only, the cost is largely reduced",
    recorded="confirmed",
)
def few_layer_cost() -> Finding:
    """Count the passes for the layers of Table 5, hidden states kept."""
    merged, sources = _networks()
    passes = {}
    for name, layers in {
        "all": set(range(1, LAYERS + 1)),
        "0, 8, 9, 10": {1, 9, 10, 11},
        "8, 9, 10": {9, 10, 11},
    }.items():
        with counted(merged, *sources) as count:
            all_layers_shared(merged, sources, layers)
        passes[name] = count.layers
    reduced = max(passes["0, 8, 9, 10"], passes["8, 9, 10"]) <= passes["all"] / 2
    return Finding(
        Verdict.CONFIRMED if reduced else Verdict.CORRECTED,
        found=f"{passes['0, 8, 9, 10']} and {passes['8, 9, 10']} passes against "
        f"{passes['all']} for all {LAYERS} layers with q = {SOURCES}",
        uncertainty="none: counted; 'largely' is read as by half or more",
        how=(How.MEASURED,),
        truth="" if reduced else "The passes are reduced by less than half.",
        numbers=passes,
    )


def _networks() -> tuple[Layers, list[Layers]]:
    return _network(), [_network() for _ in range(SOURCES)]


def _network() -> Layers:
    return [nn.Linear(2, 2) for _ in range(LAYERS)]


def _input() -> Tensor:
    return torch.ones(1, 2)


def _through(layers: Layers) -> Tensor:
    x = _input()
    for layer in layers:
        x = torch.relu(layer(x))
    return x

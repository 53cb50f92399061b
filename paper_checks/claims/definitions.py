"""Remark 2 and the normalised forms of Section 3.2, on drawn pre-activations."""

import torch
from torch import Tensor

from mloss import layer_mloss, node_mloss
from paper_checks.record import Finding, How, Verdict
from paper_checks.registry import claim

NODES, SAMPLES = 128, 512
EPS = torch.finfo(torch.float64).eps
SCALES = (0.01, 1.0, 100.0)


def pre_activations(seed: int, *, q: int = 2, spread: float = 0.3) -> Tensor:
    """Draw h [q, sample, node] around a shared standard normal input."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(SAMPLES, NODES, generator=generator, dtype=torch.float64)
    errors = torch.randn(q, SAMPLES, NODES, generator=generator, dtype=torch.float64)
    return shared + spread * errors


@claim(
    "remark-2",
    where="Section 3.2, Eq. (5)",
    states="Layer M-Loss is the root of the sum of squares of its nodes' M-Loss",
    recorded="confirmed",
)
def remark_2(*, seed: int) -> Finding:
    """Compare both sides of Eq. (5) for three models and two activations."""
    h = pre_activations(seed, q=3)
    worst, averaged_first = 0.0, []
    for activation in ("relu", "gelu"):
        layer, node = layer_mloss(h, activation), node_mloss(h, activation)
        combined = node.square().sum(-1).sqrt()
        worst = max(worst, ((combined - layer).abs() / layer).max().item())
        averaged_first.append(node.mean(0).square().sum().sqrt() / layer.mean())
    holds = worst <= NODES * EPS
    ratio = float(torch.stack(averaged_first).mean())
    return Finding(
        Verdict.CONFIRMED if holds else Verdict.REFUTED,
        found=f"the two sides differ by {worst:.0e} relative for every input; "
        f"averaging nodes over inputs first (as Algorithm 1 does) gives {ratio:.2f} of "
        "the layer's",
        uncertainty=f"rounding of {NODES} additions, {NODES * EPS:.0e}",
        how=(How.MEASURED,),
        truth="" if holds else "Eq. (5) does not hold for the implemented metric.",
        numbers={"relative_difference": worst, "averaged_first": ratio},
    )


@claim(
    "normalised-layer-scale",
    where="Section 3.2, Eq. (6)",
    states="Normalised layer M-Loss avoids the effect of scaling among layers",
    recorded="corrected",
)
def normalised_layer_scale(*, seed: int) -> Finding:
    """Scale the pre-activations a hundredfold up and down."""
    h = pre_activations(seed)
    means = {f: _means(h, f) for f in ("relu", "gelu")}
    factor = {f: max(values) / min(values) for f, values in means.items()}
    # eps = 1e-4 in the denominator is all that breaks ReLU's homogeneity.
    size = SCALES[0] * torch.relu(h.mean(0)).norm(dim=-1).min().item()
    allowed = 1 + 1e-4 / size + NODES * EPS
    relu_free, gelu_free = (value <= allowed for value in factor.values())
    verdict = {
        (True, True): Verdict.CONFIRMED,
        (True, False): Verdict.CORRECTED,
    }.get((relu_free, gelu_free), Verdict.REFUTED)
    return Finding(
        verdict,
        found=f"scaling h from {SCALES[0]:g} to {SCALES[-1]:g} times changes it by a "
        f"factor of {factor['relu']:.4f} for ReLU and {factor['gelu']:.1f} for GELU",
        uncertainty=f"ReLU: eps allows {allowed:.4f}; {SAMPLES} drawn inputs",
        how=(How.MEASURED,),
        truth="Eq. (6) is free of scale for ReLU and Leaky ReLU, up to epsilon; for "
        "GELU it is not, because GELU(c h) is not c GELU(h)."
        if verdict != Verdict.CONFIRMED
        else "",
        numbers={f"{f}_factor": value for f, value in factor.items()},
    )


@claim(
    "normalised-node-scale",
    where="Section 3.2, Eq. (7)",
    states="Normalised node M-Loss avoids the effect of scaling among layers",
    recorded="refuted",
)
def normalised_node_scale(*, seed: int) -> Finding:
    """Scale the pre-activations of ReLU, whose merged output is often zero."""
    h = pre_activations(seed)
    loss = {
        scale: node_mloss(scale * h, "relu", normalized=True, eps=1e-4)
        for scale in SCALES
    }
    dead = (h.mean(0) <= 0) & (loss[1.0] > 0)
    growth = (loss[SCALES[-1]].mean() / loss[1.0].mean()).item()
    of_the_dead = (loss[1.0][dead].sum() / loss[1.0].sum()).item()
    free = abs(growth - 1) < 0.01
    return Finding(
        Verdict.CONFIRMED if free else Verdict.REFUTED,
        found=f"for ReLU the mean over nodes is {loss[1.0].mean():.0f} at eps = 1e-4 "
        f"and grows {growth:.0f}-fold when h grows {SCALES[-1]:g}-fold; "
        f"{of_the_dead:.1%} of it comes from the {dead.double().mean().item():.1%} of "
        "cells whose merged output is exactly zero",
        uncertainty=f"{SAMPLES} drawn inputs of {NODES} nodes",
        how=(How.MEASURED,),
        truth=""
        if free
        else "Where ReLU's merged output is zero, Eq. (7) is the plain M-Loss divided "
        "by epsilon, so its mean follows the scale of the layer and the choice of "
        "epsilon.",
        numbers={"growth": growth, "share_of_dead": of_the_dead},
    )


def _means(h: Tensor, activation: str) -> list[float]:
    """Mean normalised layer M-Loss at every scale."""
    return [
        layer_mloss(scale * h, activation, normalized=True).mean().item()
        for scale in SCALES
    ]
